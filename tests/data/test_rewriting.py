"""Answers in a language model's words, from a real server on the loopback that fails in every way."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pandas as pd
import pytest
from chat_server import ChatServer, by_rules, kill_after

from expvqa_lib.data import build_pairs, check_table, write_table
from expvqa_lib.data.rewriting import AT_REST, EXAMPLE, ROLE, caption_faults, rewrite
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import Q1_ACTIONS, read_aus, read_emotion


def answers_to_q1(pairs: datasets.DatasetDict) -> list[str]:
    return [row["text_output"] for row in pairs["train"] if row["question_type"] == "Q1"]


def table_of(*faces: tuple[dict[int, int], str | None], words: tuple[str, ...] = ()) -> pd.DataFrame:
    """A face table without pixels: the labelled AUs and the emotion of each face."""
    columns = {"dataset": "mine", "frame": "0", "split": "train"}
    rows = [
        columns | {"emotion": emotion} | {f"AU{n}": au for n, au in aus.items()} for aus, emotion in faces
    ]
    for k, row in enumerate(rows):
        row.update(image=f"{k}.jpg", subject=f"s{k}")
    table = pd.DataFrame(rows)
    table.attrs["emotions"] = list(words)
    return check_table(table)


HAPPY, SAD = {6: 1, 12: 1}, {4: 1, 15: 1}
FEW = table_of((HAPPY | {4: 0}, "happiness"), (SAD, "sadness"), (SAD, None), (HAPPY, "happiness"))


def test_all_pairs_of_three_corpora_keep_their_meaning_in_other_words(pairs, connect):
    pairs = pairs.copy()
    pairs["test"] = pairs["test"].map(lambda row: {"source": "pseudo"})
    with ChatServer() as server:
        new, report = rewrite(pairs, connect(server))
        again, second = rewrite(pairs, connect(server))
    assert max(Counter(server.bodies).values()) == 1
    assert report["accepted"] == report["captions"] == report["requests"] == len(server.bodies)
    assert (second["requests"], second["cached"]) == (0, report["requests"])
    for split in pairs:
        assert again[split].to_list() == new[split].to_list()
        before, after = pairs[split].to_pandas(), new[split].to_pandas()
        added, after = after.iloc[len(before) :], after.iloc[: len(before)]
        assert (added["text_output"] == AT_REST).all()
        words = ["text_output", "source"]
        pd.testing.assert_frame_equal(after.drop(columns=words), before.drop(columns=words))
        texts = before["text_output"]
        described = texts.str.startswith("The person ") & ~texts.str.contains("does not")
        sources = described.map({True: "llm", False: "rules"})
        assert (after["source"] == ("pseudo" if split == "test" else sources)).all()
        assert (after["text_output"] != texts)[described].all()
        for old, text in zip(texts[described], after["text_output"][described], strict=True):
            assert read_aus(text) == read_aus(old) and read_emotion(text) == read_emotion(old)
        rest = after[~described & (after["question_type"] != "Q1")]
        assert (rest["text_output"] == texts[rest.index]).all()


def test_faces_with_the_same_labels_share_one_request_and_the_fusion_gets_the_caption(connect):
    with ChatServer() as server:
        new, report = rewrite(build_pairs(FEW), connect(server))
    requests = [json.loads(body)["messages"] for body in server.bodies]
    one_shot = [messages for messages in requests if messages[0] == {"role": "system", "content": ROLE}]
    fusions = [messages[0]["content"] for messages in requests if messages[0]["role"] == "user"]
    assert len(one_shot) == 6 and len(fusions) == 2  # two faces, their four areas; two with an emotion
    assert {len(messages) for messages in one_shot} == {4}
    actions = "Facial actions: In this face, the person raises cheek and pulls lip corner.\n"
    assert f"{actions}Emotion: The face shows happiness." in "".join(fusions)
    q1 = answers_to_q1(new)
    assert q1[0] == q1[3] and q1[0].endswith("one infers happiness.")
    assert q1[2] == "In this face, the person lowers brow and depresses lip corner."
    assert (report["captions"], report["pairs by llm"], report["tokens_in"]) == (8, 12, 80)


def test_several_emotions_and_further_words_are_named_as_they_are(connect):
    kinds = ({6: 1, 26: 1}, "happiness+surprise"), ({4: 1}, "neutral"), ({7: 1}, "doubt")
    with ChatServer(lambda messages: by_rules(messages).replace("infers .", "infers doubt.")) as server:
        new, report = rewrite(build_pairs(table_of(*kinds, words=("doubt",))), connect(server))
    feelings = [text.partition("one infers ")[2] for text in answers_to_q1(new)]
    assert feelings == ["happiness and surprise.", "neutral.", "doubt."]
    assert report["accepted"] == report["captions"]


def test_a_face_at_rest_gets_the_fixed_description_without_a_request(connect):
    rest = {4: 0, 12: 0}
    kinds = (rest, None), (rest, "neutral"), ({4: 0}, "fear"), ({}, "neutral"), ({4: 1, 12: 0}, None)
    pairs = build_pairs(table_of(*kinds))
    with ChatServer() as server:
        new, report = rewrite(pairs, connect(server))
    assert report["requests"] == report["captions"] == 1
    feelings = ["The face shows a neutral expression.", "The face shows fear."]
    texts = [f"{AT_REST} {feelings[0]}", *feelings[::-1], "In this face, the person lowers brow.", AT_REST]
    assert answers_to_q1(new) == texts  # what is new comes last
    row = new["train"][len(pairs["train"])]
    assert row["text_input"] in Q1_ACTIONS and read_aus(AT_REST) == (set(), set())
    assert [row[key] for key in ("source", "image_id", "area", "au")] == ["rules", "mine/s0/0", None, None]


@pytest.mark.parametrize("source", ["llm", None])
def test_answers_by_others_cost_nothing_even_where_they_look_like_a_rules(connect, source):
    pairs = build_pairs(FEW)
    others = datasets.DatasetDict({"train": pairs["train"].map(lambda row: {"source": source})})
    with ChatServer() as server:
        new, report = rewrite(others, connect(server))
    assert server.bodies == [] and report["captions"] == 0
    assert new["train"].to_list() == others["train"].to_list()


def test_a_caption_with_faults_is_requested_again_with_the_reasons(connect):
    bad = "The happy person with AU12 raises the chin."

    def learns(messages):
        return by_rules(messages) if len(messages) > 4 else bad

    with ChatServer(learns) as server:
        new, report = rewrite(build_pairs(table_of(({12: 1}, None))), connect(server))
    first, second = (json.loads(body)["messages"] for body in server.bodies)
    assert second[:5] == [*first, {"role": "assistant", "content": bad}]
    assert "chin raiser" in second[5]["content"] and "codes" in second[5]["content"]
    counts = {"captions": 1, "accepted again": 1, "rejected: form": 1, "rejected: emotion word": 1}
    assert report[list(counts)].to_dict() == counts and "accepted" not in report
    assert set(new["train"]["text_output"]) == {"In this face, the person pulls lip corner."}


@pytest.mark.parametrize("answer", ["", "The person " * 300, "AU6, AU12", "The person smiles.", None])
def test_captions_with_lasting_faults_or_cut_off_are_left_to_the_rules(connect, answer):
    pairs = build_pairs(FEW)
    with ChatServer(by_rules if answer is None else lambda messages: answer) as server:
        server.finish_reason = "length" if answer is None else "stop"
        new, report = rewrite(pairs, connect(server))
    assert new["train"].to_list() == pairs["train"].to_list()
    assert report["left to the rules"] == report["captions"] == 8 and report["requests"] == 24
    assert report.get("rejected: length", 0) == (24 if answer is None else 0)


GOOD = "The person raises the cheek and pulls the lip corner."


@pytest.mark.parametrize(
    ("text", "emotion", "kinds"),
    [
        (f"{GOOD} Both go together well.", None, set()),
        (f"{GOOD} The person does not drop the jaw.", None, {"invented action", "denied action"}),
        ("The person raises the cheek without pulling the lip corner.", None, {"denied action"}),
        ("These are two action units. " + GOOD, None, {"form"}),
        ("The person smiles. " + GOOD, None, {"emotion word"}),
        (f"{GOOD} This joyful look and smile is inferred from both.", "happiness", set()),
        (GOOD, "happiness", {"wrong emotion"}),
        (f"{GOOD} It is a happy surprise.", "happiness+surprise", set()),
        (f"{GOOD} It is happiness.", "happiness+surprise", {"wrong emotion"}),
        (f"{GOOD} The person is Frustration itself.", "frustration", set()),
        (f"{GOOD} The person looks sad.", "frustration", {"wrong emotion"}),
        ("The lowered brow tells of happiness.", "happiness", {"missing action", "invented action"}),
    ],
)
def test_faults_of_a_caption(text, emotion, kinds):
    assert set(caption_faults(text, [6, 12], emotion)) == kinds
    assert caption_faults(EXAMPLE[1], [4, 15, 17]) == {}  # the worked example of the prompt


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A face table on disk, of 40 faces with different AUs."""
    labels = [{n: k >> bit & 1 for bit, n in enumerate((1, 4, 12, 15, 25, 6))} for k in range(1, 41)]
    path = tmp_path_factory.mktemp("many") / "faces.parquet"
    write_table(table_of(*[(face, "surprise") for face in labels]), path)
    return path


def test_a_killed_run_goes_on_without_a_second_request(many, connect):
    pairs = build_pairs(pd.read_parquet(many))
    with ChatServer(delay=0.1) as server:
        kill_after(server, 20, rewrite, pairs, connect(server))
        new, report = rewrite(pairs, connect(server))
    assert 0 <= len(server.bodies) - len(set(server.bodies)) <= 8  # those under way, 8 at a time
    assert report["cached"] >= 12 and set(new["train"]["source"]) == {"llm", "rules"}


def test_a_missing_setting_or_a_spent_budget_stops_and_the_next_run_goes_on(many, connect, tmp_path, capsys):
    output = tmp_path / "pairs"
    command = ["pairs", "--table", str(many), "--output", str(output), "--rewrite"]
    assert main(command) == 1 and "--llm-model" in capsys.readouterr().err
    command += ["--llm-model", "tiny"]
    assert main(command) == 1 and "OPENAI_API_KEY" in capsys.readouterr().err
    with ChatServer() as server:
        connect(server)
        assert main([*command, "--budget", "0.002", "--price", "1", "2"]) == 1
        message = capsys.readouterr().err
        assert "0.002" in message and "pairs-answers.sqlite" in message and not output.exists()
        assert 19 <= len(server.bodies) <= 19 + 8
        assert main(command) == 0 and max(Counter(server.bodies).values()) == 1
    assert "pairs by llm" in capsys.readouterr().out
    assert set(datasets.load_from_disk(str(output))["train"]["source"]) == {"llm", "rules"}
