"""What each type of question is worth: models taught some of them, Exp-BLIP's captioners, and models never asked about one action unit.

All are trained from the base by the recipe of Exp-VQA(fz), for as many steps (or epochs) and with the same seed, and measured on the same
people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import pandas as pd

from ..data.table import labelled_aus
from ..errors import SettingsError
from ..facs import au_column
from ..plots import charts as figures
from ..training.curriculum import ABLATIONS, Curriculum
from . import studies
from . import tables as evaluation
from .metrics.au import COLUMNS, paired_difference

if TYPE_CHECKING:
    from ..pipeline.run import Run

ALL = "exp_vqa_fz"
"""The model that is taught everything."""

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
"""By question and metric, what is measured; F1 and AUC are macro averages."""


def available(run: Run) -> tuple[str, ...]:
    """The ablations that the run's faces allow: without labels of emotions, no captioner that tells them."""
    faces = run.faces()
    has_emotion = faces.loc[faces["split"] == "train", "emotion"].notna().any()
    return tuple(
        name for name, curriculum in ABLATIONS.items() if has_emotion or curriculum.captioner in (None, "aus")
    )


def study(run: Run, ablated: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure ablations, trained where they are not there yet, beside the model taught all, that with shuffled images, base and prior.

    By default these are all that are `available`.

    Q3 is P(yes), the mean over the wordings. Of Q1, one answer is read back: AUs on the AU corpus, where the question asks for the actions
    alone (a captioner knows one question, and is asked that), the emotion on the emotion corpus. Probes are linear, on the Q-Former's
    features, and need no answer; they are there for models only.

    Returns:
        One row a model, question and metric of `MEASURES`: the columns of `au_table` (percent, 95% intervals by subject), `question`, and
        `taught`: whether the model was trained on that; where not, it says what comes without.
    """
    profile = run.profile
    names = ("base", ALL, *(available(run) if ablated is None else ablated))
    faces, train = run.faces_of(run.au_corpus), run.faces_of(run.au_corpus, "train")
    settings = {"resamples": profile.resamples, "seed": profile.seed, "main": ALL}
    asked = {name: "Q1" if _curriculum(run, name).captioner else "Q1_actions" for name in names}
    told = {name: run.answers(name, kind, run.au_corpus) for name, kind in asked.items()}
    tables = {
        "Q3": evaluation.au_detection(faces, train, {name: run.scores(name) for name in names}, **settings),
        "Q1 actions": evaluation.told_aus(faces, told, **settings),
        "Probe actions": studies.probes(run, "aus", names, ("qformer",))[0],
    }
    if corpus := run.emotion_corpus:
        faces, train = run.faces_of(corpus), run.faces_of(corpus, "train")
        told = {name: run.answers(name, "Q1") for name in names}
        tables["Q1 emotion"] = evaluation.told_emotions(faces, train, told, **settings)
        tables["Probe emotion"] = studies.probes(run, "emotion", names, ("qformer",))[0].replace(
            {"target": {"emotion": "macro"}}
        )
    rows = pd.concat(
        [table.assign(question=question) for question, table in tables.items()], ignore_index=True
    )
    rows = rows[rows["target"] == "macro"].set_index(["model", "question", "metric"])
    wanted = [(model, *measure) for model in TITLES for measure in MEASURES]
    rows = rows.loc[[key for key in wanted if key in rows.index]].reset_index()[[*COLUMNS, "question"]]
    return rows.assign(
        taught=[_is_taught(run, *pair) for pair in zip(rows["model"], rows["question"], strict=True)]
    )


def _curriculum(run: Run, model: str) -> Curriculum:
    """What a model or control of the table was taught; nothing, of the base and the prior."""
    if model in ("base", "prior"):
        return Curriculum(questions=())
    return run.curriculum(model.removesuffix("_shuffled_images"))


def _is_taught(run: Run, model: str, question: str) -> bool:
    curriculum = _curriculum(run, model)
    if curriculum.captioner and question.startswith("Q1"):
        return curriculum.captioner != {"Q1 actions": "emotion", "Q1 emotion": "aus"}[question]
    return question[:2] in curriculum.questions  # probes are taught nobody


def layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay a `study` out to be read: a row a model, a column a measure. A star follows what the model was not taught."""
    asked = table["question"].isin(["Q3", "Q1 actions", "Q1 emotion"])
    stars = (asked & ~table["taught"] & (table["model"] != "prior")).map({True: "*", False: ""})
    columns = [MEASURES[pair] for pair in zip(table["question"], table["metric"], strict=True)]
    wide = table.assign(text=evaluation.interval_texts(table) + stars, column=columns).pivot(
        index="model", columns="column", values="text"
    )
    wide = wide.reindex(
        index=[name for name in TITLES if name in wide.index], columns=list(dict.fromkeys(columns))
    )
    return wide.rename(index=TITLES).rename_axis(index="Model", columns=None).fillna("-")


@figures.styled
def figure(table: pd.DataFrame) -> figures.Figure:
    """Draw a `study`: a row a model, a panel a measure, hollow what was not taught, the label prior as a line."""
    drawn = {
        ("Q3", "auc"): "Q3\nAUC",
        ("Q1 actions", "f1"): "Q1 actions\nF1",
        ("Q1 emotion", "accuracy"): "Q1 emotion\naccuracy",
    }
    models = [model for model in TITLES if model != "prior" and model in set(table["model"])]
    rows = table.set_index(["question", "metric", "model"]).sort_index()
    measures = [measure for measure in drawn if measure in rows.index]
    fig = figures.Figure(figsize=(figures.COLUMN, 0.95 + 0.19 * len(models)))
    panels = fig.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for ax, measure in zip(panels, measures, strict=True):
        for y, model in enumerate(models):
            row, tint = rows.loc[(*measure, model)], _colour(model)
            style = {
                "color": tint,
                "markerfacecolor": tint if row["taught"] else "white",
                "markersize": 3.8,
                "elinewidth": 1.2,
            }
            ax.errorbar(
                row["value"],
                y,
                xerr=[[max(0, row["value"] - row["low"])], [max(0, row["high"] - row["value"])]],
                fmt="o",
                **style,
            )
            if y % 2 == 0:
                ax.axhspan(y - 0.5, y + 0.5, color="#F4F4F4", zorder=0)
        ax.axvline(
            rows.loc[(*measure, "prior"), "value"],
            color=figures.COLOURS["prior"],
            linewidth=0.9,
            linestyle="--",
            zorder=1,
        )
        ax.set(xlim=(-4, 104), xticks=(0, 50, 100), ylim=(len(models) - 0.5, -0.5))
        ax.set_title(drawn[measure], fontsize=7, fontweight="normal", loc="center")
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(models)), [TITLES[model] for model in models])
    fig.suptitle(
        "What each question is worth",
        x=0.01,
        ha="left",
        fontsize=mpl.rcParams["axes.titlesize"],
        fontweight="bold",
    )
    fig.supxlabel("percent, 95% intervals; hollow: not taught; dashed: label prior", fontsize=7)
    return fig


def _colour(model: str) -> str:
    """Captioners in green, parts of the questions in grey, the others as everywhere."""
    known = figures.COLOURS | {f"{ALL}_shuffled_images": figures.COLOURS["exp_vqa_shuffled_images"]}
    return known.get(model, "#009E73" if model.endswith("captioner") else "#444444")


def verdict(table: pd.DataFrame) -> str:
    """What a `study` of all ablations found: Q3 with and without its questions, Q1 beside the best captioner that was taught to tell it."""
    rows = (
        table.assign(text=evaluation.interval_texts(table))
        .set_index(["question", "metric", "model"])
        .sort_index()
    )

    def told(question: str, metric: str, model: str) -> str:
        return rows.loc[(question, metric, model), "text"]

    found = [
        f"Asked Q3, the model taught Q1 and Q2 alone has an AUC of {told('Q3', 'auc', 'q1_q2')}; taught Q3 alone "
        f"{told('Q3', 'auc', 'q3_only')}, taught all {told('Q3', 'auc', ALL)}."
    ]
    for question, metric, what in (
        ("Q1 actions", "f1", "Action units (F1)"),
        ("Q1 emotion", "accuracy", "The emotion (accuracy)"),
    ):
        if question in table["question"].to_numpy():
            those = rows.loc[(question, metric)]
            best = those.loc[those.index.str.endswith("captioner") & those["taught"], "value"].idxmax()
            found.append(
                f"{what} out of one answer to Q1: {told(question, metric, ALL)} taught all, {told(question, metric, 'q1_only')} taught Q1 "
                f"alone, {told(question, metric, best)} by the best captioner, the {TITLES[best]}."
            )
    return " ".join(found)


def leave_one_out(run: Run, aus: Sequence[int] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask about each of some AUs a model that no Q3 pair has asked about it, though Q1 and Q2 have named it.

    Args:
        aus: AUs of the AU corpus; default: the profile's `left_out`. Each is a training.

    Returns:
        F1 and AUC of each AU by that model (`left_out`), by it with shuffled images, by the model that was taught the AU (`ALL`) and by the
        prior, with the columns of `au_table`; and the differences of the first to the taught one on the same resamples of subjects: target,
        metric, value, low, high (percentage points), p, support.

    Raises:
        SettingsError: an AU is not labelled in the AU corpus, or the profile's models are never taught it.
    """
    profile, faces = run.profile, run.faces_of(run.au_corpus)
    train = run.faces_of(run.au_corpus, "train")
    aus = profile.left_out if aus is None else aus
    known = [au for au in labelled_aus(faces) if au not in profile.unseen]
    if unknown := [au for au in aus if au not in known]:
        raise SettingsError(
            f"AU {unknown[0]} cannot be left out; {run.au_corpus} has, and {ALL} is taught, {known}"
        )
    common = {"groups": faces["subject"], "resamples": profile.resamples, "seed": profile.seed}
    tables, differences = [], []
    for au in aus:
        column, scores = au_column(au), {"left_out": run.scores(f"without_au{au}"), ALL: run.scores(ALL)}
        table = evaluation.au_detection(faces, train, scores, profile.resamples, profile.seed, "left_out")
        tables.append(table[(table["target"] == column) & table["metric"].isin(["f1", "auc"])])
        for metric in ("f1", "auc"):
            found = paired_difference(
                faces[[column]], *(told[[column]] for told in scores.values()), metric=metric, **common
            )
            differences.append({"target": column, "metric": metric, **found})
    return pd.concat(tables, ignore_index=True), pd.DataFrame(differences)


def left_out_layout(table: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Lay out what `leave_one_out` returns: a row an AU and metric, a column a model, the difference and its p-value."""
    names = {
        "left_out": "Left out",
        "left_out_shuffled_images": "Left out, shuffled images",
        ALL: "Taught",
        "prior": TITLES["prior"],
    }
    wide = table.assign(text=evaluation.interval_texts(table)).pivot(
        index=["target", "metric"], columns="model", values="text"
    )[list(names)]
    differences = differences.set_index(["target", "metric"])
    wide = wide.rename(columns=names).rename_axis(columns=None).loc[differences.index]
    wide["Left out - taught"] = evaluation.interval_texts(differences)
    wide["p"] = differences["p"].map("{:.3f}".format)
    return (
        wide.reset_index()
        .replace({"metric": {"f1": "F1", "auc": "AUC"}})
        .rename(columns={"target": "AU", "metric": "Metric"})
    )


def left_out_verdict(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """What `leave_one_out` found, in a sentence an AU."""
    auc = (
        table[table["metric"] == "auc"]
        .assign(text=evaluation.interval_texts(table))
        .set_index(["target", "model"])
    )
    gap = (
        differences[differences["metric"] == "auc"]
        .assign(text=evaluation.interval_texts(differences))
        .set_index("target")
    )
    return " ".join(
        f"Never asked about {au}, the model ranks faces with an AUC of {auc.loc[(au, 'left_out'), 'text']}, "
        f"{'above' if auc.loc[(au, 'left_out'), 'low'] > 50 else 'not surely above'} chance; asked about it in training, "
        f"{auc.loc[(au, ALL), 'text']}, a difference of {gap.loc[au, 'text']} points."
        for au in gap.index
    )
