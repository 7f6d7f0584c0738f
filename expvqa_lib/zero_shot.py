"""Zero-shot detection: action units (AUs) that Exp-VQA(fz) was never asked about, asked at test time beside those that it was.

Only Q3 leaves them out: the descriptions of Q1 and Q2 name their actions, and so the model has words for them. Exp-VQA, which was asked
about all, shows what asking in training is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .corpora.table import labelled_aus
from .errors import SettingsError
from .evaluation import told_in, with_controls
from .facs import au_column
from .figures import NAMES
from .metrics.au_f1 import au_table, paired_difference, prior_scores
from .workspace import MODELS

if TYPE_CHECKING:
    from .workspace import Workspace

MODEL, NAMED = "exp_vqa_fz", "exp_vqa_fz_named"
FEWEST = 10
"""Test faces with an AU below which it is left out: of fewer, no figure says anything."""
METRICS = ("auc", "balanced_accuracy", "f1")


def corpus(workspace: Workspace) -> str | None:
    """The corpus whose test faces have most of the unseen AUs labelled; None where none has any."""
    test = workspace.faces().query("split == 'test' and labelled_by.isna()")
    columns = [au_column(au) for au in workspace.profile.unseen]
    present = test[columns].eq(1).groupby(test["dataset"]).sum() >= FEWEST
    return present.sum(axis=1).idxmax() if present.any(axis=None) else None


def asked(workspace: Workspace) -> dict[str, list[int]]:
    """AUs with enough test faces: `seen`, which Exp-VQA(fz) was asked about in training, and `unseen`.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    if (found := corpus(workspace)) is None:
        names = ", ".join(map(au_column, workspace.profile.unseen)) or "none"
        raise SettingsError(f"no test split has {FEWEST} faces or more with an unseen action unit (they are: {names})")
    faces = workspace.faces()
    test = workspace.faces_of(found)
    enough = [au for au in labelled_aus(test) if test[au_column(au)].eq(1).sum() >= FEWEST]
    taught = set(labelled_aus(faces[faces["split"] == "train"])) - set(workspace.profile.unseen)
    return {
        "seen": [au for au in enough if au in taught],
        "unseen": [au for au in enough if au in workspace.profile.unseen],
    }


def _predictions(workspace: Workspace) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The test faces, and what each model and control makes of them: P(yes) [faces, AUs]."""
    name, aus = corpus(workspace), sum(asked(workspace).values(), [])
    faces = workspace.faces_of(name)
    scores = with_controls({model: workspace.scores(model, name, aus) for model in MODELS}, faces, workspace.profile.seed, MODEL)
    columns = list(scores[MODEL])
    scores["prior"] = prior_scores(faces[columns], faces.index)
    scores[NAMED] = told_in(workspace.answers(MODEL, "Q1", name), len(faces), columns)
    return faces, scores


def zero_shot(workspace: Workspace) -> pd.DataFrame:
    """Measure each model and control on every AU, and the averages `seen` and `unseen`; columns as `au_table`, in percent.

    Models: those of the run, the prior (always yes), Exp-VQA(fz) on shuffled images, and what it names when asked to describe the face
    (Q1), which is yes or no and so has no AUC.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    faces, scores = _predictions(workspace)
    common = {"dataset": faces["dataset"].iat[0], "split": "test", "groups": faces["subject"], "metrics": METRICS}
    common |= {"n_resamples": workspace.profile.resamples, "seed": workspace.profile.seed}
    parts = []
    for group, aus in asked(workspace).items():
        labels = faces[[au_column(au) for au in aus]]
        for model, table in scores.items() if aus else ():
            rows = au_table(labels, table[labels.columns], model=model, **common)
            parts.append(rows[(rows["metric"] != "auc") | (model != NAMED)].replace({"target": {"macro": group}}))
    return pd.concat(parts, ignore_index=True)


def differences(workspace: Workspace) -> pd.DataFrame:
    """Exp-VQA(fz) minus each control on the averages `seen` and `unseen`, of the same resampled people.

    Returns:
        One row a group, metric and control: group, metric, minus, value, low, high (percentage points), p.
    """
    faces, scores = _predictions(workspace)
    settings = {"groups": faces["subject"], "n_resamples": workspace.profile.resamples, "seed": workspace.profile.seed}
    rows = []
    for group, aus in asked(workspace).items():
        labels = faces[[au_column(au) for au in aus]]
        for metric in METRICS if aus else ():
            for other in ("prior", "base", f"{MODEL}_shuffled_images"):
                found = paired_difference(labels, *(scores[name][labels.columns] for name in (MODEL, other)), metric=metric, **settings)
                rows.append({"group": group, "metric": metric, "minus": other} | found.drop("support").to_dict())
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame, gains: pd.DataFrame) -> str:
    """What `zero_shot` and `differences` say about the unseen AUs, in Markdown."""
    value = table.set_index(["model", "target", "metric"])["value"]
    of = gains.set_index(["group", "metric", "minus"])

    def above(metric: str, other: str) -> bool:
        return of.loc[("unseen", metric, other), "low"] > 0

    shuffled, told = f"{MODEL}_shuffled_images", []
    ranks = [other for other in ("prior", "base", shuffled) if above("auc", other)]
    auc = {group: value[MODEL, group, "auc"] for group in ("seen", "unseen")}
    told.append(
        f"By rank, Exp-VQA(fz) finds unseen AUs with an AUC of {auc['unseen']:.1f} (seen ones: {auc['seen']:.1f}; Exp-VQA, which was asked "
        f"about all in training: {value['exp_vqa', 'unseen', 'auc']:.1f}). "
        + (f"The whole interval of the difference lies above 0 against {_listed(ranks)}." if ranks else "That beats no control surely.")
    )
    decided = [other for other in ("prior", shuffled) if above("f1", other)]
    f1 = {model: value[model, "unseen", "f1"] for model in (MODEL, "prior", NAMED)}
    if len(decided) == 2:
        told.append(f"At a threshold of one half its F1 of {f1[MODEL]:.1f} beats the prior's {f1['prior']:.1f} and shuffled images, too.")
    else:
        told.append(
            f"At a threshold of one half its F1 is {f1[MODEL]:.1f}, and **does not beat** the {f1['prior']:.1f} of always saying yes: "
            "P(yes) of a question that was never asked is not calibrated, and lies mostly below one half. What the model has learnt of "
            f"these actions shows in words: where it describes the face (Q1), it names them with an F1 of {f1[NAMED]:.1f}."
        )
    return " ".join(told)


def _listed(models: list[str]) -> str:
    return ", ".join(NAMES[model] for model in models)
