"""Zero-shot detection: action units (AUs) that Exp-VQA(fz) was never asked about, asked at test time beside those that it was.

Only Q3 leaves them out: the descriptions of Q1 and Q2 name their actions, and so the model has words for them. Exp-VQA, which was asked
about all, stands beside it; it also trains the vision encoder, so what asking alone is worth, `ablations.leave_one_out` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..data.table import labelled_aus
from ..errors import SettingsError
from ..facs import au_column
from ..pipeline.run import MODELS
from .metrics.au import au_table, paired_difference, prior_scores
from .tables import NAMES, told_in, with_controls

if TYPE_CHECKING:
    from ..pipeline.run import Run

MODEL, SHUFFLED, NAMED = "exp_vqa_fz", "exp_vqa_fz_shuffled_images", "exp_vqa_fz_named"
FEWEST = 10
"""Test faces with an AU below which it is left out: of fewer, no figure says anything."""
METRICS = ("auc", "balanced_accuracy", "f1", "recall")


def corpus(run: Run) -> str | None:
    """The corpus whose test faces have most of the unseen AUs labelled; None where none has any."""
    faces = run.faces()
    tests = {name: run.faces_of(name) for name in faces.loc[faces["split"] == "test", "dataset"].unique()}
    found = {
        name: sum(test[au_column(au)].eq(1).sum() >= FEWEST for au in run.profile.unseen)
        for name, test in tests.items()
    }
    best = max(found, key=found.get, default=None)
    return best if found.get(best) else None


def asked(run: Run) -> dict[str, list[int]]:
    """AUs with enough test faces: `seen`, which Exp-VQA(fz) was asked about in training, and `unseen`.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    if (found := corpus(run)) is None:
        names = ", ".join(map(au_column, run.profile.unseen)) or "none"
        raise SettingsError(
            f"no test split has {FEWEST} faces or more with an unseen action unit (they are: {names})"
        )
    faces = run.faces()
    test = run.faces_of(found)
    enough = [au for au in labelled_aus(test) if test[au_column(au)].eq(1).sum() >= FEWEST]
    taught = set(labelled_aus(faces[faces["split"] == "train"])) - set(run.profile.unseen)
    return {
        "seen": [au for au in enough if au in taught],
        "unseen": [au for au in enough if au in run.profile.unseen],
    }


def _predictions(run: Run) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The test faces, and what each model and control makes of them: P(yes) [faces, AUs]."""
    name, aus = corpus(run), sum(asked(run).values(), [])
    faces = run.faces_of(name)
    scores = with_controls(
        {model: run.scores(model, name, aus) for model in MODELS}, faces, run.profile.seed, MODEL
    )
    columns = list(scores[MODEL])
    scores["prior"] = prior_scores(faces[columns], faces.index)
    scores[NAMED] = told_in(run.answers(MODEL, "Q1", name), len(faces), columns)
    return faces, scores


def zero_shot(run: Run) -> pd.DataFrame:
    """Measure each model and control on every AU, and the averages `seen` and `unseen`; columns as `au_table`, in percent.

    Models: those of the run, the prior (always yes), Exp-VQA(fz) on shuffled images, and what it names when asked to describe the face
    (Q1), which is yes or no and so has no AUC.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    faces, scores = _predictions(run)
    common = {
        "dataset": faces["dataset"].iat[0],
        "split": "test",
        "groups": faces["subject"],
        "metrics": METRICS,
    }
    common |= {"resamples": run.profile.resamples, "seed": run.profile.seed}
    parts = []
    for group, aus in asked(run).items():
        labels = faces[[au_column(au) for au in aus]]
        for model, table in scores.items() if aus else ():
            rows = au_table(labels, table[labels.columns], model=model, **common)
            parts.append(
                rows[(rows["metric"] != "auc") | (model != NAMED)].replace({"target": {"macro": group}})
            )
    return pd.concat(parts, ignore_index=True)


def differences(run: Run) -> pd.DataFrame:
    """Exp-VQA(fz), asked (Q3) and describing the face (Q1), minus its controls, on the averages `seen` and `unseen` of the same people.

    Returns:
        One row a group, model, metric and control: group, model, metric, minus, value, low, high (percentage points), p.
    """
    faces, scores = _predictions(run)
    scores = with_controls(scores, faces, run.profile.seed, NAMED)
    settings = {"groups": faces["subject"], "resamples": run.profile.resamples, "seed": run.profile.seed}
    pairs = [
        (MODEL, METRICS, ("prior", "base", SHUFFLED)),
        (NAMED, METRICS[1:], ("prior", f"{NAMED}_shuffled_images")),
    ]
    rows = []
    for group, aus in asked(run).items():
        labels = faces[[au_column(au) for au in aus]]
        for model, metric, other in [
            (m, metric, other)
            for m, metrics, others in pairs
            if aus
            for metric in metrics
            for other in others
        ]:
            mine, its = (scores[name][labels.columns] for name in (model, other))
            found = paired_difference(labels, mine, its, metric=metric, **settings)
            rows.append(
                {"group": group, "model": model, "metric": metric, "minus": other}
                | found.drop("support").to_dict()
            )
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame, gains: pd.DataFrame) -> str:
    """What `zero_shot` and `differences` say about the unseen AUs, in Markdown."""
    value = table.set_index(["model", "target", "metric"])["value"]
    of = gains[gains["group"] == "unseen"].set_index(["model", "metric"])

    def against(model: str, metric: str) -> str:
        rows = of.loc[[(model, metric)]]
        surely = {"surely more": rows["low"] > 0, "surely less": rows["high"] < 0}
        surely["neither surely more nor less"] = ~surely["surely more"] & ~surely["surely less"]
        return "; ".join(
            f"{how} than {' and '.join(NAMES[name] for name in rows.loc[those, 'minus'])}"
            for how, those in surely.items()
            if those.any()
        )

    prior = value["prior", "unseen", "f1"]
    told = [
        f"**By rank**, Exp-VQA(fz) finds unseen AUs with an AUC of {value[MODEL, 'unseen', 'auc']:.1f}: {against(MODEL, 'auc')}. Exp-VQA, "
        f"which was asked about them in training, has {value['exp_vqa', 'unseen', 'auc']:.1f}."
    ]
    if ("exp_vqa", "seen", "auc") in value.index:
        told[0] += (
            f" Of AUs that both were asked about they have {value[MODEL, 'seen', 'auc']:.1f} and {value['exp_vqa', 'seen', 'auc']:.1f}."
        )
    told.append(
        f"**By a yes**, with a threshold of one half, it has an F1 of {value[MODEL, 'unseen', 'f1']:.1f} (always yes: {prior:.1f}): "
        f"{against(MODEL, 'f1')}. It says yes to {value[MODEL, 'unseen', 'recall']:.0f}% of the faces with the "
        "action: the probability of an answer that was never asked for is not calibrated."
    )
    told.append(
        f"**In words**, where it describes the face (Q1), it names the same actions with an F1 of {value[NAMED, 'unseen', 'f1']:.1f}: "
        f"{against(NAMED, 'f1')}."
    )
    return "\n\n".join(told)
