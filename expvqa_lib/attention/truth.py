"""Whether relevance maps tell the truth: of rendered faces the pixels that an AU changed are known, and
patches can be blurred. A `run` is a `pipeline.Run`.
"""

import copy
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate, max_pool2d

from .. import data, questions, synthfacs
from ..evaluation.metrics.bootstrap import COLUMNS, bootstrap_table, group_codes, mean_of_defined, ratio
from ..evaluation.tables import MAIN, NAMES, with_intervals
from ..model import beginnings, first_p_yes
from .methods import DEFAULT_METHOD, METHODS, Relevance, answer_logits, blur, inputs, relevance, upsample

DETECTED = 0.5  # P(yes) from which the model detects an AU
SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of the patches; closer where the first ones decide


def pointing(run) -> pd.DataFrame:
    """Pointing game: how often the peak of the map for yes to Q3 lies on pixels that the AU changed.

    Of `Profile.explained` test faces an AU of the AU corpus, Exp-VQA explains half, the base a fifth.

    Returns:
        Tidy table an AU and `macro`, in percent: `pointing_accuracy` of all faces, `chance` (the mean share
            of changed pixels), and of the faces where the model detects the AU `pointing_detected`, and
            `pointing_detected_region` of peaks in the whole region, as figures outline it
            (`close_gaps`), with its mean share `chance_region`; NaN where it detects none. Empty
            where faces are not rendered.
    """
    tables = [pd.DataFrame(columns=list(COLUMNS))]
    for name, part in ((MAIN, 2), ("base", 5)) if run.is_rendered else ():
        expvqa, cases = run.model(name), pointing_cases(run, part)
        maps, p_yes, _ = _explain_yes(expvqa.model, expvqa.processor, cases)
        changed, regions = _moved(cases)
        maps = upsample(maps, changed.shape[1])
        values = {
            "pointing_accuracy": _peak_inside(maps, changed),
            "chance": changed.mean((1, 2)),
            "chance_region": regions.mean((1, 2)),
            "pointing_detected": np.where(p_yes >= DETECTED, _peak_inside(maps, changed), np.nan),
            "pointing_detected_region": np.where(p_yes >= DETECTED, _peak_inside(maps, regions), np.nan),
        }
        tables.append(_table(run, name, pd.DataFrame(values), cases))
    return pd.concat(tables[-2:], ignore_index=True)


def faithfulness(run) -> pd.DataFrame:
    """Score the maps for yes to Q3 of every method where Exp-VQA detects the AU.

    Of `Profile.explained` test faces an AU a quarter is mapped; of a twelfth patches are blurred, which takes
    most of the time. Controls are a `uniform` map, one that is highest at the `centre`, and each method on
    the model with its weights permuted (Adebayo et al. 2018), where a method that shows what was learned
    fails.

    Metrics, in percent, are those of `deletion_insertion`, and where the peak lies: `pointing_accuracy`, on
    changed pixels; `pointing_region`, in the region that they enclose; `pointing_patch`, within half a patch.
    `energy` is the relevance on changed pixels, `area` their share of the picture, which is chance.

    Returns:
        Tidy table of models `exp_vqa` and `exp_vqa_randomised`, with the column `method`, an AU and `macro`;
        95% intervals by subject. Empty where faces are not rendered, or the model detects no AU.
    """
    tables, cases = [pd.DataFrame(columns=[*COLUMNS, "method"])], pd.DataFrame()
    if run.is_rendered:
        expvqa, cases = run.model(MAIN), pointing_cases(run, 4)
        cheapest = _explain_yes(expvqa.model, expvqa.processor, cases, "cross_attention")
        cases = cases[cheapest.p_yes >= DETECTED].reset_index(drop=True)
    if cases.empty:
        return tables[0]
    changed, regions = _moved(cases)
    reach = round(changed.shape[1] / cheapest.maps.shape[1] / 2)  # half a patch
    near = max_pool2d(torch.from_numpy(changed).float(), 2 * reach + 1, stride=1, padding=reach).numpy() > 0
    with_curve = cases.groupby("au").cumcount() < max(1, run.profile.explained // 12)
    for (name, method), maps in _all_maps(run, expvqa, cases).items():
        large = upsample(maps, changed.shape[1])
        values = {
            "pointing_accuracy": _peak_inside(large, changed),
            "pointing_region": _peak_inside(large, regions),
            "pointing_patch": _peak_inside(large, near),
            "energy": (large * changed).sum((1, 2)) / large.sum((1, 2)).clip(min=1e-30),
            "area": changed.mean((1, 2)),
        }
        curves = deletion_insertion(expvqa, cases[with_curve], maps[with_curve], run.profile.seed)
        tables.append(_table(run, name, pd.DataFrame(values).join(curves), cases).assign(method=method))
    return pd.concat(tables[1:], ignore_index=True)


def pointing_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `pointing` out to be read: a row an AU, a column a model, and chance."""
    if table.empty:
        return pd.DataFrame()
    chance = table[(table["metric"] == "chance") & (table["model"] == MAIN)].set_index("target")["value"]
    return with_intervals(table, "pointing_accuracy").assign(
        chance=chance.rename({"macro": "Average"}).map("{:.1f}".format)
    )


def faithfulness_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `faithfulness` out to be read: rows are models and methods, columns metrics; means over AUs."""
    wide = table[table["target"] == "macro"].pivot(
        index=["model", "method"], columns="metric", values="value"
    )
    metrics = [
        "pointing_accuracy",
        "pointing_region",
        "pointing_patch",
        "energy",
        "area",
        "deletion",
        "insertion",
    ]
    return wide.reindex(columns=metrics).astype(float).rename(index=NAMES).rename_axis(columns=None)


def pointing_cases(run, part: int) -> pd.DataFrame:
    """Choose rendered test faces that show an AU, one `part` of `Profile.explained` an AU, with `au` and
    `question`.
    """
    rng, faces, cases = np.random.default_rng(run.profile.seed), run.faces_of(run.au_corpus), []
    for au in data.labelled_aus(faces):
        rows = rng.permutation(np.flatnonzero(faces[f"AU{au}"] == 1))[: max(1, run.profile.explained // part)]
        cases.append(faces.iloc[rows].assign(au=au, question=questions.ask_q3(au)))
    return pd.concat(cases, ignore_index=True)


def _explain_yes(model, processor, cases: pd.DataFrame, method: str = DEFAULT_METHOD) -> Relevance:
    pairs = list(cases["image"]), list(cases["question"])
    return relevance(model, processor, *pairs, targets=[questions.YES] * len(cases), method=method)


def _all_maps(run, expvqa, cases: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Maps [N, h, h] by model and method, those with permuted weights and the controls last."""
    models = {MAIN: expvqa.model, f"{MAIN}_randomised": randomised(expvqa.model, run.profile.seed)}
    maps = {
        (name, method): _explain_yes(model, expvqa.processor, cases, method).maps
        for name, model in models.items()
        for method in METHODS
    }
    side = maps[MAIN, "cross_attention"].shape[1]
    away = (np.arange(side) - (side - 1) / 2) / side
    bell = np.exp(-8 * (away[:, None] ** 2 + away**2))  # a standard deviation of a quarter of the side
    controls = {(MAIN, "uniform"): np.ones((side, side)), (MAIN, "centre"): bell}
    return maps | {key: np.array([control] * len(cases), np.float32) for key, control in controls.items()}


@torch.no_grad()
def randomised(model, seed: int):
    """Copy a model with the values of each weight matrix permuted: same scale, nothing learned is left."""
    random, other = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    for weight in other.parameters():
        if weight.ndim > 1:
            order = torch.randperm(weight.numel(), generator=random)
            weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
    return other


@torch.no_grad()
def deletion_insertion(expvqa, cases: pd.DataFrame, maps: np.ndarray, seed: int) -> pd.DataFrame:
    """Measure P(yes) as `SHARES` of the patches, the most relevant first, are blurred or alone shown sharp.

    Args:
        maps: [N, h, h], averaged over each patch; equal patches come in random order.

    Returns:
        A row a case: `deletion`, the area under P(yes) as patches are blurred (low is good), `insertion`, as
            they are shown in a blurred picture (high is good; both Petsiuk et al. 2018), and `deletion_25`
            and the like, P(yes) at that share of the patches; from 0 to 1.
    """
    model, grid = expvqa.model, round(expvqa.model.vision_model.embeddings.num_patches**0.5)
    begin = beginnings(expvqa.processor.tokenizer)
    mean = adaptive_avg_pool2d(torch.from_numpy(maps), grid).flatten(1).numpy()  # [N, P]
    order = np.lexsort((np.random.default_rng(seed).random(mean.shape), -mean), axis=1)
    rank = torch.from_numpy(order.argsort(1)).view(-1, 1, grid, grid).float()
    parts = []
    for k in range(0, len(cases), 64):
        part = cases[k : k + 64]
        pixels, text = inputs(model, expvqa.processor, list(part["image"]), list(part["question"]))
        blurred = blur(pixels, pixels.shape[-1] / 12)
        ranks = interpolate(rank[k : k + 64], pixels.shape[-2:]).to(model.device)  # of each pixel's patch
        values = [
            first_p_yes(
                answer_logits(model, torch.where(ranks < round(share * grid**2), *pictures), text), begin
            )
            for share in SHARES[:-1]
            for pictures in ((blurred, pixels), (pixels, blurred))
        ]
        # a curve ends where the other begins
        parts.append(torch.stack([*values[::2], values[1], *values[1::2], values[0]]))
    curves = torch.cat(parts, 1).view(2, len(SHARES), -1).cpu().numpy()
    areas = np.trapezoid(curves, SHARES, axis=1)[:, None]  # [2, 1, N]
    shares = ["", *(f"_{100 * share:g}" for share in SHARES)]
    columns = [metric + share for metric in ("deletion", "insertion") for share in shares]
    return pd.DataFrame(np.concatenate([areas, curves], 1).reshape(len(columns), -1).T, cases.index, columns)


def _moved(cases: pd.DataFrame):
    """The pixels that each case's AU changed, and its whole region: masks [N, H, W]."""
    return map(np.stack, zip(*map(changed_pixels, cases["face"], cases["au"]), strict=True))


@lru_cache(4096)
def changed_pixels(face: str, au: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that an AU changes in a rendered face (JSON of a `Face`), and the region they enclose."""
    changed = synthfacs.au_mask(synthfacs.Face.from_json(face), au)
    return changed, close_gaps(changed)


def close_gaps(mask: np.ndarray) -> np.ndarray:
    """Return a mask [H, W] with its gaps of up to 1/24 of the height closed.

    Where lids tighten, the pixels of both their edges change; the closed mask has the eye between them.
    """
    gap = np.ones([2 * round(len(mask) / 48) + 1] * 2, np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, gap) > 0


def _peak_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether the peak of each map [N, H, W] is in its mask; of several equal peaks, the share that is."""
    peaks = maps == maps.max((1, 2), keepdims=True)
    return (peaks & masks).sum((1, 2)) / peaks.sum((1, 2))


def _table(run, model: str, values: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric (a column; NaN: not measured) an AU and over AUs, in percent, with intervals."""
    aus = cases["au"].unique()
    counted = (cases["au"].to_numpy()[:, None] == aus)[..., None] & values.notna().to_numpy()[:, None]
    scores = np.where(counted, values.to_numpy(float)[:, None], 0.0)  # [cases, AUs, metrics], as `counted`

    def measure(weights: np.ndarray) -> np.ndarray:
        """Weights [R, cases] to means [R, AUs + 1, metrics]; the last of the AUs is their macro average."""
        means = ratio(np.tensordot(weights, scores, 1), np.tensordot(weights, counted, 1), np.nan)
        return np.concatenate([means, mean_of_defined(means.swapaxes(1, 2))[:, None]], 1)

    support = pd.DataFrame(counted.sum(0), [f"AU{au}" for au in aus], values.columns)
    support.loc["macro"] = support.sum()
    return bootstrap_table(
        measure,
        [(*target_metric, count) for target_metric, count in support.stack().items()],
        group_codes(cases["subject"], len(cases)),
        model=model,
        dataset=run.au_corpus,
        split="test",
        resamples=run.profile.resamples,
        seed=run.profile.seed,
    )
