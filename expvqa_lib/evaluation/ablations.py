"""What each type of question is worth: models trained on some types, captioners, one AU left out of Q3.

All are trained from the base by the recipe of Exp-VQA(fz), for as many steps (or epochs) and with the same
seed, and measured on the same people.
"""

from collections.abc import Sequence

import pandas as pd

from ..data import labelled_aus
from ..facs import au_column
from ..questions import ask_q1
from ..training import ABLATIONS
from .detection import (
    au_answer_table,
    au_detection,
    below_each_other,
    bootstrap_settings,
    detection_table,
    emotion_answer_table,
    paired_differences,
)
from .metrics import COLUMNS
from .probes import probe
from .tables import interval_texts, text_table

ALL = "exp_vqa_fz"
"""The model that is trained on all questions."""

TITLES = {
    "prior": "Label prior",
    "base": "Base, untuned",
    "q1_only": "Q1 only",
    "q1_q2": "Q1 and Q2",
    "q3_only": "Q3 only",
    ALL: "All questions",
    f"{ALL}_shuffled_images": "All, shuffled images",
    "au_captioner": "AU-captioner",
    "emot_captioner": "Emot-captioner",
    "mix_captioner": "Mix-captioner",
    "cat_captioner": "Cat-captioner",
    "exp_captioner": "Exp-captioner",
}
MEASURES = {
    ("Q3", "f1"): "Q3 F1",
    ("Q3", "auc"): "Q3 AUC",
    ("Q1 actions", "f1"): "Q1 action units, F1",
    ("Q1 emotion", "accuracy"): "Q1 emotion, accuracy",
    ("Probe actions", "f1"): "Probe action units, F1",
    ("Probe emotion", "accuracy"): "Probe emotion, accuracy",
}
"""Column titles by question and metric; F1 and AUC are macro averages."""

_LEFT_OUT = {
    "left_out": "Left out",
    "left_out_shuffled_images": "Left out, shuffled images",
    ALL: "Taught",
    "prior": TITLES["prior"],
}


def available(run) -> tuple[str, ...]:
    """The ablations of a `pipeline.Run`: without emotion labels, no captioner that needs them."""
    has_emotion = run.faces().query("split == 'train'")["emotion"].notna().any()
    return tuple(n for n, c in ABLATIONS.items() if has_emotion or c.captioner in (None, "aus"))


def training_sets(run) -> pd.DataFrame:
    """What each ablation is trained on: pairs, of faces, pseudo (filled in by a captioner), such as."""
    rows = {}
    for name in available(run):
        pairs = run.training_pairs(name)["train"].to_pandas()
        rows[TITLES[name]] = {
            "pairs": len(pairs),
            "of faces": pairs["image"].nunique(),
            "pseudo": (pairs["source"] == "pseudo").sum(),
            "such as": f"{pairs['text_input'].iat[-1]} {pairs['text_output'].iat[-1]}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def study(run, ablated: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure ablations (default: all `available`) beside the model trained on all, base and controls.

    Q3 is P(yes), the mean over the wordings. AUs are read out of one Q1 answer about the AU corpus, where the
    question asks for the actions alone (a captioner is asked the one question that it was trained on); the
    emotion likewise on the emotion corpus. Probes are linear, on the Q-Former's features.

    Args:
        run: a `pipeline.Run`; models that are not there yet are trained.

    Returns:
        One row a model, question and metric of `MEASURES`: the columns of `au_table` (percent), `question`,
        and `taught`: whether the model was trained on that question.
    """
    names = ("base", ALL, *(available(run) if ablated is None else ablated))
    tables, settings = {}, bootstrap_settings(run) | {"main": ALL}
    if run.has_aus:
        faces = run.faces_of(run.au_corpus)
        kinds = {name: "Q1" if name.endswith("captioner") else "Q1_actions" for name in names}
        answers = {name: run.answers(name, kind, faces) for name, kind in kinds.items()}
        tables["Q3"] = au_detection(run, *names, main=ALL)
        tables["Q1 actions"] = au_answer_table(faces, answers, **settings)
        tables["Probe actions"] = probe(run, "aus", names, ("qformer",))[0]
    if run.emotion_corpus:
        answers = {name: run.answers(name, "Q1") for name in names}
        faces = run.emotion_faces(), run.emotion_faces("train")
        tables["Q1 emotion"] = emotion_answer_table(*faces, answers, **settings)
        tables["Probe emotion"] = probe(run, "emotion", names, ("qformer",))[0]
    rows = below_each_other(tables).replace({"target": {"emotion": "macro"}})
    rows = rows[rows["target"] == "macro"].set_index(["model", "question", "metric"])
    wanted = [(model, *measure) for model in TITLES for measure in MEASURES]
    rows = rows.loc[[key for key in wanted if key in rows.index]].reset_index()[[*COLUMNS, "question"]]
    pairs = zip(rows["model"], rows["question"], strict=True)
    return rows.assign(taught=[_is_taught(run, *pair) for pair in pairs])


def _is_taught(run, model: str, question: str) -> bool:
    """Whether a model or control of the table was trained on a question; none is on probes."""
    if model in ("base", "prior"):
        return False
    curriculum = run.curriculum(model.removesuffix("_shuffled_images"))
    if curriculum.captioner and question.startswith("Q1"):
        return curriculum.captioner != {"Q1 actions": "emotion", "Q1 emotion": "aus"}[question]
    return question[:2] in curriculum.questions


def layout(table: pd.DataFrame) -> pd.DataFrame:
    """A `study` to read: a row a model, a column a measure; a star marks what was not trained."""
    is_asked = table["question"].isin(["Q3", "Q1 actions", "Q1 emotion"]) & (table["model"] != "prior")
    stars = (is_asked & ~table["taught"]).map({True: "*", False: ""})
    columns = [MEASURES[pair] for pair in zip(table["question"], table["metric"], strict=True)]
    wide = text_table(table.assign(column=columns), "model", "column", stars)
    wide = wide.reindex(
        index=[name for name in TITLES if name in wide.index], columns=pd.unique(pd.Series(columns))
    )
    return wide.rename(index=TITLES).rename_axis(index="Model").fillna("-")


def example_answers(run) -> pd.DataFrame:
    """The answer of every model to Q1 about the first test face of the caption corpus."""
    face, answers = run.faces_of(run.caption_corpus)["image"].iat[0], {}
    for name in ("base", ALL, *available(run)):
        answers[TITLES[name]] = run.model(name).ask(face, ask_q1(), crop=False)
    return pd.Series(answers, name="answer to the first Q1 question").to_frame()


def leave_one_out(run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a model about an AU that no Q3 pair of its training asks about, though Q1 and Q2 name it.

    One model is trained for each AU of the profile's `left_out` that the run's AU corpus has labelled.

    Returns:
        F1 and AUC of each AU in the columns of `au_table`, by that model (`left_out`), by it on shuffled
        images, by the model that was asked (`ALL`) and by the prior; and the differences of the first to the
        third on the same people, as of `paired_differences`, with the column target.
    """
    faces = run.faces_of(run.au_corpus)
    tables, differences = [], []
    for au in [au for au in run.profile.left_out if au in labelled_aus(faces)]:
        column, scores = au_column(au), {"left_out": run.scores(f"without_au{au}"), ALL: run.scores(ALL)}
        table = detection_table(faces, scores, main="left_out", **bootstrap_settings(run))
        tables.append(table[(table["target"] == column) & table["metric"].isin(["f1", "auc"])])
        pairs = [("left_out", metric, ALL) for metric in ("f1", "auc")]
        differences.append(
            paired_differences(run, faces, faces[[column]], scores, pairs).assign(target=column)
        )
    return pd.concat(tables, ignore_index=True), pd.concat(differences, ignore_index=True)


def left_out_layout(table: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """`leave_one_out` to read: a row an AU and metric, a column a model, the difference and its p."""
    wide = text_table(table, ["target", "metric"], "model")[list(_LEFT_OUT)].rename(columns=_LEFT_OUT)
    differences = differences.set_index(["target", "metric"])
    texts = {"Left out - taught": interval_texts(differences), "p": differences["p"].map("{:.3f}".format)}
    wide = wide.loc[differences.index].assign(**texts).rename({"f1": "F1", "auc": "AUC"}, level="metric")
    return wide.reset_index(names=["AU", "Metric"])
