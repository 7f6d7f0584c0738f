"""Answers in words against the sentences that the rules write of the same faces."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data import au_labels
from ..questions import answer_q1, answer_q2
from . import published
from .detection import bootstrap_settings, exchange_subjects
from .metrics import caption_scores, caption_table
from .tables import MAIN, MODELS, NAMES, with_intervals

REFERENCE_METRICS = {
    "meteor_exact_stem": "METEOR (exact, stem)",
    "rouge_l": "ROUGE-L",
    "bleu4": "BLEU-4",
    "cider_d": "CIDEr-D",
    "tfidf_similarity": "tf-idf similarity",
}
FLAWS = ("repetition", "empty", "unfinished")
KINDS = ("Q1", "Q2")


def rule_answers(faces: pd.DataFrame, kind: str, areas: Sequence[str]) -> np.ndarray:
    """The rules' answers to Q1 or to Q2 of each area: [faces, areas]; None where the labels say nothing."""
    answers = np.full((len(faces), len(areas)), None, object)
    for row, face in enumerate(faces.to_dict("records")):
        labels, emotion = au_labels(face), face["emotion"] if pd.notna(face["emotion"]) else None
        for column, area in enumerate(areas):
            present = [au for au, label in labels.items() if label]
            answers[row, column] = answer_q2(labels, area) if kind == "Q2" else answer_q1(present, emotion)
    return answers


def captions(run, kind: str) -> pd.DataFrame:
    """Every answer to Q1 or Q2 of every model and control, with the rules' answer about the same face.

    The prior gives every face (of Q2: each area) the rules' answer that is most frequent in training.

    Args:
        run: a `pipeline.Run`.

    Returns:
        Columns: model, row (of the test faces), subject, area, caption, references (a list of one).
    """
    corpus = caption_corpus(run, kind)
    faces, train = run.faces_of(corpus), run.faces_of(corpus, "train")
    predictions = {name: run.answers(name, kind, faces) for name in MODELS}
    table = predictions[MAIN][["row", "area"]]
    areas = table["area"].unique()
    answers = {name: rows["answer"].to_numpy().reshape(len(faces), -1) for name, rows in predictions.items()}
    usual = pd.DataFrame(rule_answers(train, kind, areas)).mode().iloc[0].fillna("")
    answers["prior"] = np.tile(usual, (len(faces), 1))
    answers[f"{MAIN}_shuffled_images"] = answers[MAIN][exchange_subjects(faces["subject"], run.profile.seed)]
    truth = [[answer] for answer in rule_answers(faces, kind, areas).ravel()]
    table = table.assign(subject=table["row"].map(faces["subject"]), references=truth)
    table = pd.concat([table.assign(model=model, caption=texts.ravel()) for model, texts in answers.items()])
    return table[table["references"].str[0].notna()].reset_index(drop=True)


def caption_corpus(run, kind: str) -> str:
    """The corpus whose faces Q1 or Q2 captions are about."""
    return run.caption_corpus if kind == "Q1" else run.au_corpus


def caption_quality(run) -> pd.DataFrame:
    """Caption metrics of each model and control in the columns of `au_table`; the target is Q1 or Q2."""
    tables = []
    for kind in KINDS:
        settings = {
            "dataset": caption_corpus(run, kind),
            "split": "test",
            "target": kind,
        } | bootstrap_settings(run)
        settings["metrics"] = (*REFERENCE_METRICS, *FLAWS)
        for model, rows in captions(run, kind).groupby("model", sort=False):
            columns = rows["caption"], rows["references"]
            tables.append(caption_table(*columns, model=model, groups=rows["subject"], **settings))
    return pd.concat(tables, ignore_index=True)


def caption_layout(table: pd.DataFrame, kind: str, flaws: bool = False) -> pd.DataFrame:
    """`caption_quality` of Q1 or Q2: a row a metric (of the reference, or flaws), a column a model."""
    rows = table[(table["target"] == kind) & table["metric"].isin(FLAWS if flaws else REFERENCE_METRICS)]
    rows = rows.assign(target=rows["metric"].replace(REFERENCE_METRICS), metric="score")
    return with_intervals(rows, "score").rename_axis(index="metric")


def caption_rows(table: pd.DataFrame) -> pd.DataFrame:
    """METEOR, ROUGE-L and BLEU-4 of `caption_quality`, for a chart: the target is kind and metric."""
    rows = table[table["metric"].isin(["meteor_exact_stem", "rouge_l", "bleu4"])]
    names = rows["metric"].replace(REFERENCE_METRICS).str.removesuffix(" (exact, stem)")
    return rows.assign(target=rows["target"] + " " + names)


def caption_examples(run) -> pd.DataFrame:
    """Exp-VQA's three Q1 answers that ROUGE-L likes least and the two that it likes best."""
    rows = captions(run, "Q1")
    rows = rows[rows["model"] == MAIN].reset_index(drop=True)
    scores = caption_scores(rows["caption"], rows["references"], metrics=("rouge_l",))["rouge_l"]
    rows = rows.assign(**{"ROUGE-L": scores.round(1), "reference": rows["references"].str[0]})
    rows = rows.sort_values("ROUGE-L", kind="stable")[["row", "ROUGE-L", "caption", "reference"]]
    return pd.concat([rows.head(3), rows.tail(2)]).set_index("row")


def captions_beside_published(run, table: pd.DataFrame) -> pd.DataFrame:
    """Exp-BLIP's published captions above Q1 of `caption_quality` (METEOR, ROUGE-L, percent).

    References and METEOR differ, so no order between the two means anything.
    """
    columns = {"meteor": "METEOR", "rouge_l": "ROUGE-L"}
    printed = published.load("au_captioning")
    printed = printed[printed["metric"].isin(columns)].assign(value=lambda rows: 100 * rows["value"])
    keys = ["dataset", "model", "source"]
    printed = printed.pivot_table(index=keys, columns="metric", values="value", sort=False).reset_index()
    rows = table[table["target"] == "Q1"].replace({"metric": {"meteor_exact_stem": "meteor"}})
    own = rows[rows["metric"].isin(columns)].pivot(index="model", columns="metric", values="value")
    own = own.rename(index=NAMES).rename_axis("model").reset_index()
    data = run.about(run.caption_corpus)
    both = pd.concat([printed, own.assign(dataset=data, source="this run")], ignore_index=True)
    names = {"dataset": "Data", "model": "Model", **columns, "source": "Source"}
    return both[list(names)].rename(columns=names)
