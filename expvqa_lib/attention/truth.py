"""Whether relevance maps tell the truth: of drawn faces the pixels that an AU changed are known, and patches
can be blurred.

A `run` is a `pipeline.Run`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import max_pool2d
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.table import labelled_aus
from ..evaluation.metrics import COLUMNS, bootstrap, group_codes, mean_of_defined
from ..evaluation.tables import MAIN, NAMES, with_intervals
from ..facs import ACTION_UNITS
from ..questions import YES, ask_q3
from ..synthfacs import Face, au_mask, close_gaps
from .explain import relevance, upsample
from .methods import DEFAULT_METHOD, METHODS
from .perturbation import deletion_insertion, randomised

RANDOMISED = f"{MAIN}_randomised"
CONTROLS = ("uniform", "centre")
DETECTED = 0.5
"""P(yes) from which the model detects an AU."""

_METRICS = (
    "pointing_accuracy",
    "pointing_region",
    "pointing_patch",
    "energy",
    "area",
    "deletion",
    "insertion",
)


def pointing(run) -> pd.DataFrame:
    """The pointing game of Exp-VQA and of the untuned base on the AU corpus's test faces. See
    `pointing_table`.

    Of `Profile.explained` faces an AU Exp-VQA explains half, the base a fifth. Empty where faces are not
    drawn.
    """
    if not run.is_drawn:
        return pd.DataFrame(columns=list(COLUMNS))
    faces, profile, tables = run.faces_of(run.au_corpus), run.profile, []
    for name, part in ((MAIN, 2), ("base", 5)):
        expvqa, cases = (
            run.model(name),
            pointing_cases(faces, max(1, profile.explained // part), profile.seed),
        )
        settings = {"resamples": profile.resamples, "seed": profile.seed}
        tables.append(pointing_table(expvqa.model, expvqa.processor, cases, **settings).assign(model=name))
    return pd.concat(tables, ignore_index=True)


def faithfulness(run) -> pd.DataFrame:
    """Score every method and its controls on Exp-VQA and the AU corpus's test faces. See
    `faithfulness_table`.

    Of `Profile.explained` faces an AU a quarter is mapped; of a twelfth patches are blurred, which takes most
    of the time. Empty where faces are not drawn.
    """
    if not run.is_drawn:
        return pd.DataFrame(columns=[*COLUMNS, "method"])
    expvqa, profile = run.model(MAIN), run.profile
    cases = pointing_cases(run.faces_of(run.au_corpus), max(1, profile.explained // 4), profile.seed)
    curves = max(1, profile.explained // 12)
    return faithfulness_table(
        expvqa.model, expvqa.processor, cases, curves, resamples=profile.resamples, seed=profile.seed
    )


def pointing_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `pointing` out to be read: a row an AU, a column a model, and chance."""
    if table.empty:
        return pd.DataFrame()
    chance = table[(table["metric"] == "chance") & (table["model"] == MAIN)].set_index("target")["value"]
    return with_intervals(table, "pointing_accuracy").assign(chance=chance.map("{:.1f}".format))


def faithfulness_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `faithfulness` out to be read: rows are models and methods, columns metrics; means over AUs."""
    macro = table[table["target"] == "macro"]
    wide = macro.pivot(index=["model", "method"], columns="metric", values="value")
    wide = wide.reindex(columns=list(_METRICS)).astype(float)
    return wide.sort_values("energy", ascending=False).rename(index=NAMES).rename_axis(columns=None)


def pointing_cases(faces: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    """Choose up to `each` drawn faces an AU where it is present: rows of `faces` with the columns `au` and
    `question` (Q3).
    """
    rng = np.random.default_rng(seed)
    parts = []
    for au in labelled_aus(faces):
        rows = np.flatnonzero(faces[ACTION_UNITS[au].name] == 1)
        parts.append(faces.iloc[rng.permutation(rows)[:each]].assign(au=au, question=ask_q3(au)))
    return pd.concat(parts, ignore_index=True)


def pointing_table(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    cases: pd.DataFrame,
    *,
    method: str = DEFAULT_METHOD,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Pointing game: how often the peak of the map for yes to Q3 lies on pixels that the AU changed.

    Args:
        cases: of `pointing_cases`; the changed pixels come from drawing each face again without the AU.

    Returns:
        Tidy table an AU and `macro`, in percent: `pointing_accuracy` of all faces, `chance` (the mean share
            of changed pixels), and of the faces where the model detects the AU `pointing_detected`, and
            `pointing_detected_region` of peaks in the whole region, as figures outline it
            (`synthfacs.close_gaps`), with its mean share `chance_region`; NaN where it detects none.
    """
    maps, p_yes, _ = _explain_yes(model, processor, cases, method)
    changed, regions = _changed(cases)
    maps = upsample(maps, changed.shape[1])
    values = pd.DataFrame(
        {
            "pointing_accuracy": _peak_inside(maps, changed),
            "chance": changed.mean((1, 2)),
            "chance_region": regions.mean((1, 2)),
        }
    )
    detected = p_yes >= DETECTED
    values["pointing_detected"] = values["pointing_accuracy"].where(detected)
    values["pointing_detected_region"] = np.where(detected, _peak_inside(maps, regions), np.nan)
    return _table(values, cases, resamples, seed).assign(model=MAIN)[list(COLUMNS)]


def faithfulness_table(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    cases: pd.DataFrame,
    curves: int,
    *,
    methods: Sequence[str] = tuple(METHODS),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the maps for yes (Q3, its first wording) of every method on the cases whose AU the model detects.

    The metrics are those of `_map_scores` and `deletion_insertion`, in percent. Controls are a `uniform` map,
    one that is highest at the `centre`, and each method on the model with its weights permuted (Adebayo et
    al. 2018), where a method that shows what was learned fails.

    Args:
        cases: of `pointing_cases`.
        curves: of how many of them an AU deletion and insertion are measured.

    Returns:
        Tidy table of models `exp_vqa` and `exp_vqa_randomised`, with the column `method`, an AU and `macro`;
        95% intervals by subject. Empty where the model detects no AU.
    """
    p_yes = _explain_yes(model, processor, cases, "cross_attention").p_yes  # the cheapest method
    cases = cases[p_yes >= DETECTED].reset_index(drop=True)
    if cases.empty:
        return pd.DataFrame(columns=[*COLUMNS, "method"])
    changed, regions = _changed(cases)
    vision = model.config.vision_config
    half_patch = round(changed.shape[1] * vision.patch_size / vision.image_size / 2)
    near, with_curve = widen(changed, half_patch), cases.groupby("au").cumcount() < curves
    tables = []
    for name, method, maps in _all_maps(model, processor, cases, methods, seed):
        values = _map_scores(maps, changed, regions, near)
        values = values.join(deletion_insertion(model, processor, cases[with_curve], maps[with_curve], seed))
        tables.append(_table(values, cases, resamples, seed).assign(model=name, method=method))
    return pd.concat(tables, ignore_index=True)[[*COLUMNS, "method"]]


def _map_scores(maps: np.ndarray, changed: np.ndarray, regions: np.ndarray, near: np.ndarray) -> pd.DataFrame:
    """Score maps against masks; of several equal peaks the share that is inside counts.

    `pointing_accuracy`: the peak lies on changed pixels; `pointing_region`: in the region that they enclose;
    `pointing_patch`: within half a patch. `energy`: the relevance on changed pixels; `area`: their share of
    the picture, which is chance.
    """
    large = upsample(maps, changed.shape[1])
    return pd.DataFrame(
        {
            "pointing_accuracy": _peak_inside(large, changed),
            "pointing_region": _peak_inside(large, regions),
            "pointing_patch": _peak_inside(large, near),
            "energy": (large * changed).sum((1, 2)) / large.sum((1, 2)).clip(min=1e-30),
            "area": changed.mean((1, 2)),
        }
    )


def _all_maps(model, processor, cases, methods, seed) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield model, method and maps [N, h, h], those with permuted weights and the controls last."""
    for name, explained in ((MAIN, model), (RANDOMISED, randomised(model, seed))):
        for method in methods:
            yield name, method, _explain_yes(explained, processor, cases, method).maps
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    away = (np.arange(side) - (side - 1) / 2) / side
    bell = np.exp(-8 * (away[:, None] ** 2 + away**2))  # a standard deviation of a quarter of the side
    for method, control in zip(CONTROLS, (np.ones((side, side)), bell), strict=True):
        yield MAIN, method, np.repeat(control[None].astype(np.float32), len(cases), 0)


def _explain_yes(model, processor, cases: pd.DataFrame, method: str):
    images, questions = list(cases["image"]), list(cases["question"])
    return relevance(model, processor, images, questions, targets=[YES] * len(cases), method=method)


def widen(masks: np.ndarray, reach: int) -> np.ndarray:
    """Masks [N, H, W] grown by `reach` pixels each way."""
    return max_pool2d(torch.from_numpy(masks).float(), 2 * reach + 1, stride=1, padding=reach).numpy() > 0


def _changed(cases: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each case's AU changed, and its whole region: masks [N, H, W]."""
    masks = [changed_pixels(face, au) for face, au in zip(cases["face"], cases["au"], strict=True)]
    return tuple(np.stack(kind) for kind in zip(*masks, strict=True))


@lru_cache(4096)
def changed_pixels(face: str, au: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that an AU changes in a drawn face (the JSON of a `Face`), and the region they enclose."""
    changed = au_mask(Face.from_json(face), au)
    return changed, close_gaps(changed)


def _peak_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether the peak of each map [N, H, W] is in its mask; of several equal peaks, the share that is."""
    peaks = maps == maps.max((1, 2), keepdims=True)
    return (peaks & masks).sum((1, 2)) / peaks.sum((1, 2))


def _table(values: pd.DataFrame, cases: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Mean of each metric (a column; NaN: not measured) an AU and over AUs, in percent, with intervals."""
    aus = cases["au"].unique()
    member = np.stack([cases["au"] == au for au in aus], 1).astype(float)  # [cases, AUs]
    measured = values.to_numpy(float) * 100  # [cases, metrics]
    defined = ~np.isnan(measured)

    def measure(weights: np.ndarray) -> np.ndarray:
        """Weights [R, cases] to means [R, AUs + 1, metrics]; the last of the AUs is their macro average."""
        with np.errstate(invalid="ignore"):
            total = np.einsum("rc,ca,cm->ram", weights, member, np.nan_to_num(measured), optimize=True)
            total /= np.einsum("rc,ca,cm->ram", weights, member, defined.astype(float), optimize=True)
        return np.concatenate([total, mean_of_defined(total.swapaxes(1, 2))[:, None]], 1)

    subjects = group_codes(cases["subject"].to_numpy(), len(cases))
    value, low, high, _ = bootstrap(measure, subjects, resamples, seed)
    support = member.T @ defined
    support = np.concatenate([support, support.sum(0, keepdims=True)]).astype(int)
    rows = [
        (cases["dataset"].iat[0], "test", target, metric, value[k, m], low[k, m], high[k, m], support[k, m])
        for k, target in enumerate([*(ACTION_UNITS[a].name for a in aus), "macro"])
        for m, metric in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS[1:]))
