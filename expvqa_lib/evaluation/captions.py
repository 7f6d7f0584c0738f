"""Answers in words against the sentences that the rules write of the same faces."""

from __future__ import annotations

from collections.abc import Iterable

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


def references(face: dict, kind: str, area: str) -> list[str]:
    """The sentence that the rules write about a face for Q1 or Q2; none without labels."""
    labels = au_labels(face)
    if kind == "Q2":
        sentence = answer_q2(labels, area)
    else:
        present = [au for au, label in labels.items() if label]
        sentence = answer_q1(present, face["emotion"] if pd.notna(face["emotion"]) else None)
    return [sentence] if sentence else []


def captions(run, kind: str) -> pd.DataFrame:
    """Every answer to Q1 or Q2 of every model and control, with the rules' sentence about the same face.

    The prior gives every face (of Q2: each area) the sentence that is most frequent in training. `run` is a
    `pipeline.Run`. Columns: model, row (of the test faces), subject, area, caption, references.
    """
    corpus = caption_corpus(run, kind)
    faces = run.faces_of(corpus)
    models = {name: run.answers(name, kind, faces) for name in MODELS}
    table = models[MAIN][["row"]].assign(area=models[MAIN]["area"].fillna(""))
    usual = _most_frequent(run.faces_of(corpus, "train"), kind, table["area"].unique())
    answers = {name: predictions["answer"].to_numpy() for name, predictions in models.items()}
    answers["prior"] = table["area"].map(usual).to_numpy()
    other = exchange_subjects(faces["subject"], run.profile.seed)
    answers[f"{MAIN}_shuffled_images"] = answers[MAIN].reshape(len(faces), -1)[other].ravel()
    table["subject"] = table["row"].map(faces["subject"])
    records = faces.to_dict("records")
    asked = zip(table["row"], table["area"], strict=True)
    table["references"] = [references(records[k], kind, area) for k, area in asked]
    table = pd.concat([table.assign(model=model, caption=texts) for model, texts in answers.items()])
    return table[table["references"].map(bool)].reset_index(drop=True)


def caption_corpus(run, kind: str) -> str:
    """The corpus whose faces Q1 or Q2 captions are about."""
    return run.caption_corpus if kind == "Q1" else run.au_corpus


def _most_frequent(train: pd.DataFrame, kind: str, areas: Iterable[str]) -> dict[str, str]:
    """The most frequent sentence about each area; an empty one where there is none."""
    records, sentences = train.to_dict("records"), {}
    for area in areas:
        texts = pd.Series([text for face in records for text in references(face, kind, area)], dtype=object)
        sentences[area] = texts.mode().iat[0] if len(texts) else ""
    return sentences


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
