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


def rule_answers(faces: pd.DataFrame, kind: str, areas: Sequence[str]) -> np.ndarray:
    """The rules' answers to Q1 or to Q2 of each area: [faces, areas]; None where the labels say nothing."""
    labels = [au_labels(face) for face in faces.to_dict("records")]
    if kind == "Q2":
        return np.array([[answer_q2(of_face, area) for area in areas] for of_face in labels], object)
    present = [[au for au, label in of_face.items() if label] for of_face in labels]
    emotions = faces["emotion"].astype(object).where(faces["emotion"].notna(), None)
    return np.array([[answer_q1(*face)] for face in zip(present, emotions, strict=True)], object)


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
    answers = {name: rows["answer"].to_numpy().reshape(len(faces), -1) for name, rows in predictions.items()}
    usual = pd.DataFrame(rule_answers(train, kind, table["area"].unique())).mode().iloc[0].fillna("")
    answers["prior"] = np.tile(usual, (len(faces), 1))
    answers[f"{MAIN}_shuffled_images"] = answers[MAIN][exchange_subjects(faces["subject"], run.profile.seed)]
    truth = pd.Series(rule_answers(faces, kind, table["area"].unique()).ravel())
    table = table.assign(subject=table["row"].map(faces["subject"]), references=[[text] for text in truth])
    tables = [table.assign(model=model, caption=texts.ravel()) for model, texts in answers.items()]
    return pd.concat([table[truth.notna()] for table in tables], ignore_index=True)


def caption_corpus(run, kind: str) -> str:
    """The corpus whose faces Q1 or Q2 captions are about."""
    return run.caption_corpus if kind == "Q1" else run.au_corpus


def caption_quality(run) -> pd.DataFrame:
    """Caption metrics of each model and control in the columns of `au_table`; the target is Q1, or Q2
    where a corpus has AUs.
    """
    settings = {"split": "test", "metrics": (*REFERENCE_METRICS, *FLAWS), **bootstrap_settings(run)}
    tables = []
    for kind in ("Q1", "Q2") if run.has_aus else ("Q1",):
        settings |= {"dataset": caption_corpus(run, kind), "target": kind}
        for model, rows in captions(run, kind).groupby("model", sort=False):
            names = {"model": model, "groups": rows["subject"]}
            tables.append(caption_table(rows["caption"], rows["references"], **names, **settings))
    return pd.concat(tables, ignore_index=True)


def caption_layout(table: pd.DataFrame, kind: str, flaws: bool = False) -> pd.DataFrame:
    """`caption_quality` of Q1 or Q2: a row a metric (of the reference, or flaws), a column a model."""
    rows = table[(table["target"] == kind) & table["metric"].isin(FLAWS if flaws else REFERENCE_METRICS)]
    rows = rows.assign(target=rows["metric"].replace(REFERENCE_METRICS), metric="score")
    return with_intervals(rows, "score").rename_axis(index="metric")


def caption_rows(table: pd.DataFrame) -> pd.DataFrame:
    """METEOR, ROUGE-L and BLEU-4 of `caption_quality`, for a chart: the target is kind and metric."""
    rows = table[table["metric"].isin(["meteor_exact_stem", "rouge_l", "bleu4"])]
    names = rows["target"] + " " + rows["metric"].replace(REFERENCE_METRICS)
    return rows.assign(target=names.str.removesuffix(" (exact, stem)"))


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
    columns, keys = {"meteor": "METEOR", "rouge_l": "ROUGE-L"}, ["dataset", "model", "source"]
    printed = published.load("au_captioning")
    printed = printed.assign(value=100 * printed["value"])
    own = table[table["target"] == "Q1"].replace({"metric": {"meteor_exact_stem": "meteor"}, "model": NAMES})
    own = own.assign(dataset=run.about(run.caption_corpus), source="this run").sort_values("model")
    rows = pd.concat([printed, own]).query("metric in @columns")
    both = rows.pivot_table("value", keys, "metric", sort=False).reset_index()
    names = {"dataset": "Data", "model": "Model", **columns, "source": "Source"}
    return both[list(names)].rename(columns=names)
