"""Which pairs a model is trained on, and labels by a model: its marked pairs, and a run that was stopped."""

import importlib

import datasets
import numpy as np
import pandas as pd
import pytest

from expvqa_lib.data import AU_COLUMNS, au_labels, build_pairs, write_table
from expvqa_lib.data.table import SPLITS
from expvqa_lib.errors import ImageError, SettingsError
from expvqa_lib.expvqa import QUICK
from expvqa_lib.model import load_model
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import Q1_ACTIONS, Q1_EMOTION, ask_q1, read_aus, read_emotion
from expvqa_lib.synthfacs import CorpusSizes, make
from expvqa_lib.training import Curriculum, caption, captioner_pairs, curriculum, select
from expvqa_lib.training.curriculum import add_pseudo_pairs, complete_labels


def _faces(images, splits, emotions, **aus) -> pd.DataFrame:
    columns = {"image": images, "dataset": "own", "subject": "s", "frame": 0, "labelled_by": None}
    labels = pd.DataFrame(pd.NA, index=range(len(images)), columns=list(AU_COLUMNS), dtype="Int8")
    table = pd.concat([pd.DataFrame(columns | {"split": splits, "emotion": emotions}), labels], axis=1)
    return table.assign(**{au: pd.array(values, dtype="Int8") for au, values in aus.items()})


@pytest.fixture(scope="module")
def drawn():
    """Pairs of 60 faces in three splits, three AUs labelled."""
    n = 60
    labels = np.random.default_rng(0).integers(0, 2, (3, n))
    images, splits = [f"{k}.png" for k in range(n)], [SPLITS[k % 3] for k in range(n)]
    aus = dict(zip(("AU1", "AU12", "AU25"), labels.tolist(), strict=True))
    return build_pairs(_faces(images, splits, "happiness", **aus))


def test_a_models_name_gives_its_curriculum_and_unknown_names_are_refused():
    expected = {"exp_vqa_fz": Curriculum(unseen=(5,)), "q1_q2": Curriculum(("Q1", "Q2"), unseen=(5,))}
    expected |= {"cat_captioner": Curriculum(("Q1",), unseen=(5,), captioner="cat")}
    expected |= {"without_au12": Curriculum(unseen=(5, 12))}
    assert {name: curriculum(name, (5,)) for name in expected} == expected
    message = "'q4_only'.* exp_vqa, exp_vqa_fz, q1_only.*without_au12"
    for options, match in ((["q4_only"], message), (["without_au3"], "AU 3 "), (["exp_vqa", (3,)], "AU 3 ")):
        with pytest.raises(SettingsError, match=match):
            curriculum(*options)


def test_an_unseen_action_unit_and_a_type_left_out_have_no_pairs_but_the_unit_is_described(drawn):
    selected = select(drawn, Curriculum(unseen=(25,)))
    for split in ("train", "validation"):
        before, after = drawn[split].to_pandas(), selected[split].to_pandas()
        unseen = before["question_type"].eq("Q3") & before["au"].eq(25)
        assert unseen.any() and after["text_output"].str.contains("separates lips").any()
        pd.testing.assert_frame_equal(after, before[~unseen].reset_index(drop=True))
    assert selected["test"].to_dict() == drawn["test"].to_dict()
    kinds = select(drawn, Curriculum(questions=("Q1", "Q2")))["train"].to_pandas()["question_type"]
    counts = drawn["train"].to_pandas()["question_type"].value_counts()
    assert kinds.value_counts().to_dict() == counts[["Q1", "Q2"]].to_dict()


EMOTIONS = {"both": "happiness", "actions": None, "emotion": "anger", "still": "neutral"}
FACES = _faces([*EMOTIONS], "train", EMOTIONS.values(), AU12=[1, 1, pd.NA, 0])
SMILE, HAPPY = "The person pulls lip corner.", "The face shows happiness."
ANGRY, NEUTRAL = "The face shows anger.", "The face shows a neutral expression."


SENTENCES = {  # of each captioner about each face
    "aus": {"both": [SMILE], "actions": [SMILE]},
    "emotion": {"both": [HAPPY], "emotion": [ANGRY], "still": [NEUTRAL]},
    "mix": {"both": [SMILE, HAPPY], "actions": [SMILE], "emotion": [ANGRY], "still": [NEUTRAL]},
    "cat": {"both": [f"{SMILE} {HAPPY}"], "still": [NEUTRAL]},
    "exp": {"both": ["The person pulls lip corner, which suggests happiness."], "still": [NEUTRAL]},
}


@pytest.mark.parametrize("captioner", SENTENCES)
def test_a_captioner_describes_what_a_face_is_labelled_with(captioner):
    rows = captioner_pairs(FACES, captioner)["train"].to_pandas()
    assert rows.groupby("image")["text_output"].agg(list).to_dict() == SENTENCES[captioner]
    assert set(rows["text_input"]) == {ask_q1()} and set(rows["source"]) == {"rules"}


def test_other_captioners_fill_in_the_missing_half_and_it_is_marked():
    answers = ["the face shows fear.", "the person lowers brow and drops jaw."]
    captions = pd.DataFrame({"row": [1, 2], "missing": ["emotion", "actions"], "answer": answers})
    halves = complete_labels(FACES, captions)
    cat, exp = (captioner_pairs(FACES, name, halves)["train"].to_pandas() for name in ("cat", "exp"))
    cat, exp = cat.set_index("image"), exp.set_index("image")
    assert cat.loc["actions", "text_output"] == f"{SMILE} The face shows fear."
    assert cat.loc["emotion", "text_output"] == f"The person lowers brow and drops jaw. {ANGRY}"
    assert exp.loc["emotion", "text_output"] == "The person lowers brow and drops jaw, which suggests anger."
    pseudo = {"both": "rules", "actions": "pseudo", "emotion": "pseudo", "still": "rules"}
    assert exp["source"].to_dict() == pseudo
    unreadable = complete_labels(FACES, captions.assign(answer="a face."))
    assert captioner_pairs(FACES, "cat", unreadable)["train"]["image"][:] == ["both", "still"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> pd.DataFrame:
    """A few faces as large as the shipped model's."""
    sizes = CorpusSizes(lab=(2, 1, 1), wild=(3, 1, 1), emotion=(24, 2, 2), videos=1)
    return make(tmp_path_factory.mktemp("corpora") / "data", sizes)


@pytest.fixture(scope="module")
def captioner():
    return load_model(QUICK, quiet=True)


@pytest.fixture(scope="module")
def captions(captioner, corpora, tmp_path_factory) -> pd.DataFrame:
    return caption(*captioner, corpora, tmp_path_factory.mktemp("captions"))


def test_training_faces_are_asked_about_what_they_lack_and_no_other_faces(captions, corpora):
    lacking = corpora[(corpora["split"] == "train") & (corpora["dataset"] != "synth_wild")]
    assert sorted(captions["row"]) == sorted(lacking.index)
    has_emotion = corpora.loc[captions["row"], "dataset"].eq("synth_emotion").to_numpy()
    assert (captions["missing"].eq("actions") == has_emotion).all()
    questions = captions["missing"].map({"actions": Q1_ACTIONS[0], "emotion": Q1_EMOTION[0]})
    assert captions["question"].equals(questions)


def test_captions_become_marked_q1_pairs_of_the_training_split_alone(captions, corpora):
    before = build_pairs(corpora)
    after = add_pseudo_pairs(before, corpora, captions)
    for split in ("validation", "test"):
        assert after[split].to_list() == before[split].to_list()
    assert after["train"].to_list()[: len(before["train"])] == before["train"].to_list()
    added = after["train"].to_pandas().iloc[len(before["train"]) :]
    assert 20 < len(added) <= len(captions) and not added["image"].duplicated().any()
    assert set(added["source"]) == {"pseudo"} and set(added["question_type"]) == {"Q1"}
    assert added[["au", "area"]].isna().all(axis=None) and set(added["text_input"]) == set(Q1_EMOTION)
    faces = corpora.assign(answer=captions.set_index("row")["answer"]).set_index("image").loc[added["image"]]
    for text, face in zip(added["text_output"], faces.to_dict("records"), strict=True):
        labels = au_labels(face)
        present = {n for n, label in labels.items() if label} if labels else read_aus(face["answer"])[0]
        emotion = read_emotion(face["answer"]) if pd.isna(face["emotion"]) else face["emotion"]
        assert (read_aus(text)[0], read_emotion(text)) == (present, emotion)


def test_a_stopped_run_goes_on_and_another_model_asks_anew(captioner, corpora, tmp_path, monkeypatch):
    faces = corpora[corpora["dataset"] == "synth_emotion"]
    module = importlib.import_module("expvqa_lib.training.curriculum")
    images, limit, generate = [], 12, module.generate

    def stopping(model, processor, chunk, questions):
        if len(images) >= limit:
            raise KeyboardInterrupt
        images.extend(chunk)
        return generate(model, processor, chunk, questions)

    monkeypatch.setattr(module, "CHUNK", 6)
    monkeypatch.setattr(module, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        caption(*captioner, faces, tmp_path)
    limit = 1000
    first = caption(*captioner, faces, tmp_path)
    assert len(images) == len(set(images)) == len(first) == 24
    pd.testing.assert_frame_equal(caption(*captioner, faces, tmp_path), first)
    assert len(images) == 24
    monkeypatch.setattr(captioner[0].generation_config, "repetition_penalty", 1.1)
    caption(*captioner, faces.iloc[:6], tmp_path)
    assert len(images) == 30
    with pytest.raises(ImageError, match=r"nowhere/face\.png"):
        caption(*captioner, faces.assign(image="nowhere/face.png"), tmp_path)


def test_the_command_writes_pairs_with_pseudo_captions(corpora, captions, tmp_path):
    faces = corpora[corpora["dataset"] != "synth_wild"]
    root = faces["image"].iloc[0].rpartition("/data/")[0] + "/data"
    table, output = f"{root}/own.parquet", str(tmp_path / "pairs")
    write_table(faces.assign(image=faces["image"].str.removeprefix(f"{root}/")), table)
    options = ["--table", table, "--captioner", str(QUICK), "--output", output]
    assert main(["pairs", *options]) == 0
    made = datasets.load_from_disk(output)
    expected = add_pseudo_pairs(build_pairs(faces), faces, captions)
    assert made["train"].to_list() == expected["train"].to_list() and "pseudo" not in made["test"]["source"]
