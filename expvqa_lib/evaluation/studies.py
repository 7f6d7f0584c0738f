"""What is measured beyond the per-AU table: captions against the rules' own sentences, and what the representations hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from ..data.table import SPLITS, au_labels
from ..files import fingerprint
from ..pipeline.run import MODELS
from ..questions import answer_q1, answer_q2
from ..training.recipe import VARIANTS
from . import representation
from . import tables as evaluation
from .finetuned_probe import ProbeRecipe
from .metrics.au import au_table, best_thresholds
from .metrics.captions import caption_table
from .tables import with_controls

if TYPE_CHECKING:
    from ..pipeline.run import Run

WORDED = (
    "meteor_exact_stem",
    "rouge_l",
    "bleu4",
    "cider_d",
    "tfidf_similarity",
    "repetition",
    "empty",
    "unfinished",
)
TUNED_METRICS = ("f1", "balanced_accuracy", "precision", "recall")


def references(face: dict, kind: str, area: str | None) -> list[str]:
    """The sentences that the rules write of a face: one, or none where its labels say nothing."""
    labels = au_labels(face)
    if kind == "Q2":
        told = answer_q2(labels, area)
    else:
        told = answer_q1(
            [au for au, label in labels.items() if label],
            face["emotion"] if pd.notna(face["emotion"]) else None,
        )
    return [told] if told else []


def captions(run: Run, kind: str) -> pd.DataFrame:
    """Every answer to Q1 or Q2 of every model against the rules' sentence, with the controls.

    The prior says of each face (of Q2: of each area) the sentence that is most frequent in training.

    Returns:
        One row an answer: model, `row` (of the corpus's test faces), subject, area, caption, references.
    """
    corpus = run.caption_corpus if kind == "Q1" else run.au_corpus
    faces = run.faces_of(corpus)
    rows = faces.to_dict("records")
    told = {name: run.answers(name, kind, corpus)[["row", "area", "answer"]] for name in MODELS}
    asked = told[MODELS[0]][["row", "area"]]
    usual = _most_frequent(run.faces_of(corpus, "train"), kind, asked["area"].unique())
    told["prior"] = asked.assign(answer=asked["area"].map(usual))
    parts = [answers.assign(model=model) for model, answers in told.items()]
    for area, answers in told["exp_vqa"].groupby(
        "area", dropna=False, sort=False
    ):  # an area at a time: each has all faces
        one = answers.sort_values("row").reset_index(drop=True)
        other = with_controls({"exp_vqa": one[["answer"]]}, faces, run.profile.seed)[
            "exp_vqa_shuffled_images"
        ]
        parts.append(one.assign(answer=other["answer"], model="exp_vqa_shuffled_images", area=area))
    table = pd.concat(parts, ignore_index=True).rename(columns={"answer": "caption"})
    table["subject"] = table["row"].map(faces["subject"])
    table["references"] = [
        references(rows[k], kind, area) for k, area in zip(table["row"], table["area"], strict=True)
    ]
    return table[table["references"].map(bool)].reset_index(drop=True)


def _most_frequent(train: pd.DataFrame, kind: str, areas) -> dict:
    rows = train.to_dict("records")
    found = {}
    for area in areas:
        sentences = pd.Series([text for row in rows for text in references(row, kind, area)], dtype=object)
        found[area] = sentences.mode().iat[0] if len(sentences) else ""
    return found


def caption_quality(run: Run, kind: str) -> pd.DataFrame:
    """The metrics of `metrics.captions` for each model and control; columns as `au_table`, in percent, with intervals by subject."""
    told = captions(run, kind)
    corpus = run.caption_corpus if kind == "Q1" else run.au_corpus
    settings = {"dataset": corpus, "split": "test", "target": kind, "metrics": WORDED}
    settings |= {"resamples": run.profile.resamples, "seed": run.profile.seed}
    tables = [
        caption_table(rows["caption"], rows["references"], model=model, groups=rows["subject"], **settings)
        for model, rows in told.groupby("model", sort=False)
    ]
    return pd.concat(tables, ignore_index=True)


def tuned_thresholds(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure both variants with the threshold of each AU that is best on the validation split, in place of 0.5.

    Returns:
        A table as `au_table` gives it, whose metrics end in `_tuned`; and the thresholds, a row a model and a column an AU.
    """
    seen, test = (run.faces_of(run.au_corpus, split) for split in ("validation", "test"))
    columns = [column for column in evaluation.au_columns(test) if column in evaluation.au_columns(seen)]
    common = {"dataset": run.au_corpus, "split": "test", "groups": test["subject"], "metrics": TUNED_METRICS}
    common |= {"resamples": run.profile.resamples, "seed": run.profile.seed}
    tables, chosen = [], {}
    for name in VARIANTS:
        chosen[name] = best_thresholds(seen[columns], run.scores(name, split="validation")[columns])
        tables.append(
            au_table(test[columns], run.scores(name)[columns], model=name, threshold=chosen[name], **common)
        )
    return pd.concat(tables, ignore_index=True), pd.DataFrame(chosen).T


def probes(
    run: Run,
    target: str,
    models: Sequence[str] = MODELS,
    parts: Sequence[str] = tuple(representation.PART_NAMES),
    finetune: ProbeRecipe | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probe the vision encoder's and the Q-Former's features: `aus` on the AU corpus, `emotion` on the emotion corpus.

    Of a corpus with more faces, `Profile.probed` (with `finetune`: `probed_finetuned`) a split are drawn for training and validation; the
    test split is whole.

    Args:
        finetune: train the part, too; without it a linear probe reads the features as they are.

    Returns:
        The table of `representation_table`, and the differences to the base of `representation_differences`.
    """
    corpus = run.au_corpus if target == "aus" else run.emotion_corpus
    splits = [run.faces_of(corpus, split) for split in SPLITS]
    most = (run.profile.probed_finetuned if finetune else run.profile.probed) or sum(map(len, splits))
    splits = [
        some if split == "test" else some.sample(min(most, len(some)), random_state=run.profile.seed)
        for split, some in zip(SPLITS, splits, strict=True)
    ]
    faces = pd.concat(splits, ignore_index=True)
    how = f"-{fingerprint(vars(finetune))[:4]}" if finetune else ""

    def probe(name: str, part: str) -> pd.DataFrame:
        model, folder = run.model(name), run.run_dir / "features"
        return representation.probe(
            model.model, model.processor, faces, target, part, folder, finetune=finetune
        )

    scores = {
        (name, part): run.kept(f"probe-{target}-{part}-{most}{how}", name, partial(probe, name, part))
        for name in models
        for part in parts
    }
    settings = {"resamples": run.profile.resamples, "seed": run.profile.seed}
    return tuple(
        measure(faces, scores, target, **settings)
        for measure in (representation.representation_table, representation.representation_differences)
    )
