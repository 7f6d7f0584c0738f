"""Whether relevance maps tell the truth: of drawn faces the pixels that an AU changed are known, and a patch can be taken away."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from .. import questions
from ..data.images import load_image
from ..data.table import labelled_aus
from ..evaluation.metrics.au import COLUMNS
from ..evaluation.metrics.bootstrap import bootstrap, group_codes, mean_of_defined
from ..evaluation.tables import MAIN, interval_texts
from ..facs import ACTION_UNITS
from ..model.forward import encode_images
from ..model.tokenize import encode
from ..model.yes_no import beginnings, first_p_yes
from ..synthfacs import Face, au_mask, close_gaps
from . import explain as attention
from .methods import answer_logits, blur

RANDOMISED = f"{MAIN}_randomised"
CONTROLS = ("uniform", "centre")
CURVES = ("deletion", "insertion")
SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Of the patches that are taken away or shown; closer together where the first ones decide."""

DETECTED = 0.5
"""P(yes) from which the model is held to see an AU."""

_BLUR = 1 / 12  # standard deviation of what takes a patch's place, as a share of the picture's side


def pointing_cases(faces: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    """Choose up to `each` test faces an AU where it is present: columns `row` (of `faces`) and `au`."""
    rng = np.random.default_rng(seed)
    cases = []
    for au in labelled_aus(faces):
        rows = np.flatnonzero(faces[ACTION_UNITS[au].name] == 1)
        cases += [(int(r), au) for r in rng.permutation(rows)[:each]]
    return pd.DataFrame(cases, columns=["row", "au"])


def pointing(
    model,
    processor,
    faces: pd.DataFrame,
    each: int,
    method: str = attention.METHODS[0],
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Pointing game: how often the peak of the map for yes falls on pixels that the AU changed, and a random one would.

    Asked is Q3 in its first wording, as by `ExpVQA.explain`.

    Args:
        faces: SynthFACS test faces; the changed pixels come from drawing each face again without the AU.
        each: faces an AU.

    Returns:
        Tidy table an AU and `macro`, in percent: `pointing_accuracy` of all faces, `chance` (the mean share of changed pixels), and
        of the faces where the model says yes (P(yes) of 0.5 or more) `pointing_detected`, and `pointing_detected_region` of peaks in
        the whole region, as figures outline it (`drawing.closed`), with its mean share `chance_region`; NaN where it never does.
    """
    cases = pointing_cases(faces, each, seed)
    images, asked = _asked(faces, cases)
    heat, chance, _ = attention.relevance(
        model, processor, images, asked, targets=[questions.YES] * len(asked), method=method
    )
    changed, regions = _changed(faces, cases)
    maps = attention.upsample(heat, changed.shape[1])
    values = {
        "pointing_accuracy": _peak_inside(maps, changed),
        "chance": changed.mean((1, 2)),
        "chance_region": regions.mean((1, 2)),
    }
    inside = _peak_inside(maps, regions)
    for name, hit in (
        ("pointing_detected", values["pointing_accuracy"]),
        ("pointing_detected_region", inside),
    ):
        values[name] = np.where(chance >= DETECTED, hit, np.nan)
    return _table(values, faces, cases, resamples, seed).assign(model=MAIN)[list(COLUMNS)]


def faithfulness(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    faces: pd.DataFrame,
    each: int,
    curves: int,
    methods: Sequence[str] = attention.METHODS,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the maps for yes (Q3, its first wording) of every method where the AU is present and the model says so (P(yes) of 0.5 or more).

    Metrics, in percent:
        `pointing_accuracy`: the map's peak lies on pixels that the AU changed; `pointing_region` in the whole region, as figures outline
            it (`drawing.closed`); `pointing_patch` within half a patch of the pixels. Of several equal peaks the share that does. A
            uniform map has chance.
        `energy`: the relevance on the changed pixels; `area`: their share of the picture.
        `deletion`: the area under P(yes) as patches are blurred, the most relevant first (low is good); `insertion`: as they are shown
            in a blurred picture (high is good). Petsiuk et al. 2018. `deletion_25` and the like: P(yes) at that share of the patches.

    Controls: a `uniform` map, one that is highest at the `centre`, and each method on the model with its weights permuted (Adebayo et
    al. 2018): a method that shows what was learned fails there.

    Args:
        faces: SynthFACS test faces.
        each: faces an AU, before those are left out that the model misses.
        curves: of these, how many an AU the deletion and insertion are measured on.

    Returns:
        Tidy table of models `exp_vqa` and `exp_vqa_randomised`, with the column `method`, an AU and `macro`; 95% intervals by subject.
        Empty where the model sees no AU.
    """
    cases = pointing_cases(faces, each, seed)
    images, asked = _asked(faces, cases)
    _, chance, _ = attention.relevance(
        model, processor, images, asked, method="cross_attention"
    )  # the cheapest
    cases = cases[chance >= DETECTED].reset_index(drop=True)
    if cases.empty:
        return pd.DataFrame(columns=[*COLUMNS, "method"])
    images, asked = _asked(faces, cases)
    changed, regions = _changed(faces, cases)
    side, patch = (
        changed.shape[1],
        changed.shape[1] * model.config.vision_config.patch_size / model.config.vision_config.image_size,
    )
    wider = {"region": regions, "patch": widen(changed, round(patch / 2))}
    with_curve = np.flatnonzero(cases.groupby("au").cumcount() < curves)
    curve_of = [images[k] for k in with_curve], [asked[k] for k in with_curve]
    tables = []
    for name, method, maps in _all_maps(model, processor, images, asked, methods, seed):
        large = attention.upsample(maps, side)
        values = {"pointing_accuracy": _peak_inside(large, changed)}
        values |= {f"pointing_{reach}": _peak_inside(large, mask) for reach, mask in wider.items()}
        values["energy"] = (large * changed).sum((1, 2)) / large.sum((1, 2)).clip(min=1e-30)
        values["area"] = changed.mean((1, 2))
        measured = deletion_insertion(model, processor, *curve_of, maps[with_curve], seed)
        for metric, curve in zip(CURVES, measured, strict=True):
            points = {
                f"{metric}_{100 * share:g}": chances for share, chances in zip(SHARES, curve, strict=True)
            }
            for name_of, found in ({metric: np.trapezoid(curve, SHARES, axis=0)} | points).items():
                values[name_of] = np.full(len(cases), np.nan)
                values[name_of][with_curve] = found
        tables.append(_table(values, faces, cases, resamples, seed).assign(model=name, method=method))
    return pd.concat(tables, ignore_index=True)[[*COLUMNS, "method"]]


def _all_maps(model, processor, images, asked, methods, seed):
    """Yield model, method and maps [N, h, h]: of the model, of the one with permuted weights, and the controls."""
    yes = [questions.YES] * len(asked)
    for name, asked_of in ((MAIN, model), (RANDOMISED, randomised(model, seed))):
        for method in methods:
            yield (
                name,
                method,
                attention.relevance(asked_of, processor, images, asked, targets=yes, method=method)[0],
            )
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    away = (np.arange(side) - (side - 1) / 2) / side
    bell = np.exp(-8 * (away[:, None] ** 2 + away**2))  # a standard deviation of a quarter of the side
    for method, control in zip(CONTROLS, (np.ones((side, side)), bell), strict=True):
        yield MAIN, method, np.repeat(control[None].astype(np.float32), len(asked), 0)


@torch.no_grad()
def randomised(
    model: InstructBlipForConditionalGeneration, seed: int = 0
) -> InstructBlipForConditionalGeneration:
    """Copy a model with the values within each of its weight matrices permuted: of the same scale, and all that was learned is gone."""
    random = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        if weight.ndim > 1:
            weight.copy_(
                weight.flatten()[torch.randperm(weight.numel(), generator=random).to(weight.device)].view_as(
                    weight
                )
            )
    return other


@torch.no_grad()
def deletion_insertion(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    asked: Sequence[str],
    maps: np.ndarray,
    seed: int = 0,
    batch: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """P(yes) as `SHARES` of the patches, the most relevant first, are blurred (deletion) and shown in a blurred picture (insertion).

    Args:
        maps: [N, h, h], averaged over each patch; equal patches come in random order.

    Returns:
        Deletion and insertion [shares, N], from 0 to 1.
    """
    grid = model.config.vision_config.image_size // model.config.vision_config.patch_size
    relevance = (
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps), grid).flatten(1).numpy()
    )  # [N, P]
    chance = np.random.default_rng(seed).random(relevance.shape)
    rank = torch.from_numpy(np.lexsort((chance, -relevance), axis=1).argsort(1)).view(-1, grid, grid)
    rows = [
        _curve(model, processor, images[k : k + batch], asked[k : k + batch], rank[k : k + batch])
        for k in range(0, len(asked), batch)
    ]
    curves = np.concatenate(rows, 1) if rows else np.empty((len(SHARES), 0, 2))
    return curves[..., 0], curves[..., 1]


def _curve(model, processor, images, asked, rank: Tensor) -> np.ndarray:
    """P(yes) [shares, N, 2] with each share of the patches of lowest `rank` [N, g, g] blurred, and with them alone not blurred."""
    pixels = processor.image_processor([load_image(i) for i in images], return_tensors="pt")[
        "pixel_values"
    ].to(model.device)
    text = {
        k: v.to(model.device)
        for k, v in encode(processor, asked, left=model.config.use_decoder_only_language_model).items()
    }
    begin = beginnings(processor.tokenizer)
    blurred, patch = blur(pixels, _BLUR * pixels.shape[-1]), model.config.vision_config.patch_size

    def p_yes(seen: Tensor) -> Tensor:
        return first_p_yes(
            answer_logits(model, encode_images(model, seen.to(model.dtype)), text), begin
        ).cpu()

    whole, nothing = p_yes(pixels), p_yes(blurred)  # the curves' ends are shared
    found = []
    for share in SHARES[1:-1]:
        taken = (
            (rank < round(share * rank[0].numel()))
            .repeat_interleave(patch, 1)
            .repeat_interleave(patch, 2)[:, None]
            .to(model.device)
        )
        found.append(
            torch.stack(
                [p_yes(torch.where(taken, blurred, pixels)), p_yes(torch.where(taken, pixels, blurred))], 1
            )
        )
    return torch.stack([torch.stack([whole, nothing], 1), *found, torch.stack([nothing, whole], 1)]).numpy()


def widen(regions: np.ndarray, reach: int) -> np.ndarray:
    """Masks [N, H, W] grown by `reach` pixels each way."""
    return max_pool2d(torch.from_numpy(regions).float(), 2 * reach + 1, stride=1, padding=reach).numpy() > 0


def _asked(faces: pd.DataFrame, cases: pd.DataFrame) -> tuple[list[str], list[str]]:
    return [faces["image"].iat[r] for r in cases["row"]], [questions.ask_q3(au) for au in cases["au"]]


def _changed(faces: pd.DataFrame, cases: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each case's AU changed, and its whole region: masks [cases, H, W]."""
    drawn = [_drawn(faces["face"].iat[r], au) for r, au in zip(cases["row"], cases["au"], strict=True)]
    return tuple(np.stack(masks) for masks in zip(*drawn, strict=True))


@lru_cache(4096)
def _drawn(face: str, au: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn once, however many models and methods are measured against it."""
    changed = au_mask(Face.from_json(face), au)
    return changed, close_gaps(changed)


def _peak_inside(maps: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Whether the peak of each map [N, H, W] is in its region; of several equal peaks, the share that is."""
    peaks = maps == maps.max((1, 2), keepdims=True)
    return (peaks & regions).sum((1, 2)) / peaks.sum((1, 2))


def _table(
    values: dict[str, np.ndarray], faces: pd.DataFrame, cases: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Means of each metric's values [cases] (NaN where not measured) an AU and over AUs, in percent, with intervals by subject."""
    aus = cases["au"].unique()
    member = np.stack([cases["au"] == au for au in aus], 1).astype(float)  # [cases, AUs]
    measured = np.stack(list(values.values()), 1) * 100  # [cases, metrics]
    there = ~np.isnan(measured)

    def measure(weights: np.ndarray) -> np.ndarray:
        """Weights [R, cases] to means [R, AUs + 1, metrics]; the last of the AUs is their macro average."""
        with np.errstate(invalid="ignore"):
            total = np.einsum("rc,ca,cm->ram", weights, member, np.nan_to_num(measured), optimize=True)
            total /= np.einsum("rc,ca,cm->ram", weights, member, there.astype(float), optimize=True)
        return np.concatenate([total, mean_of_defined(total.swapaxes(1, 2))[:, None]], 1)

    value, low, high = bootstrap(
        measure, group_codes(faces["subject"].to_numpy()[cases["row"]], len(cases)), resamples, seed
    )
    support = member.T @ there
    support = np.concatenate([support, support.sum(0, keepdims=True)]).astype(int)
    rows = [
        (faces["dataset"].iat[0], "test", target, metric, value[k, m], low[k, m], high[k, m], support[k, m])
        for k, target in enumerate([*(ACTION_UNITS[a].name for a in aus), "macro"])
        for m, metric in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS[1:]))


def verdict(table: pd.DataFrame) -> str:
    """The README's sentence on whether the default's maps can be trusted, from `faithfulness`."""
    macro = table[table["target"] == "macro"].set_index(["model", "method", "metric"]).sort_index()
    default = attention.METHODS[0]
    mine, blind = macro.loc[MAIN, default], macro.loc[RANDOMISED, default]["value"]
    return (
        f"Where the model detects an action unit, {interval_texts(mine)['energy']} % of the relevance of the default map, `{default}`, "
        f"lies on pixels that it moved, which are {mine['value']['area']:.1f} % of the picture. With permuted weights "
        f"{blind['energy']:.0f} % lies there, and the peak is there in {blind['pointing_accuracy']:.0f} %."
    )
