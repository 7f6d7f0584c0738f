"""The places of a face that have a name, and what is measured between them."""

from __future__ import annotations

import numpy as np

_SIDES = ("left", "right")
_IBUG = {
    "left": {
        "outer eyebrow": (17,),
        "eyebrow middle": (19,),
        "inner eyebrow": (21,),
        "outer eye corner": (36,),
        "inner eye corner": (39,),
        "upper lid": (37, 38),
        "lower lid": (40, 41),
        "nose wing": (31,),
        "lip corner": (48,),
        "upper lip": (49, 50),
        "lower lip": (58, 59),
        "jaw": (4,),
        "cheek": (68,),
    },
    "right": {
        "outer eyebrow": (26,),
        "eyebrow middle": (24,),
        "inner eyebrow": (22,),
        "outer eye corner": (45,),
        "inner eye corner": (42,),
        "upper lid": (43, 44),
        "lower lid": (46, 47),
        "nose wing": (35,),
        "lip corner": (54,),
        "upper lip": (52, 53),
        "lower lip": (55, 56),
        "jaw": (12,),
        "cheek": (69,),
    },
}
PLACES = {f"{side} {part}": rows for side, parts in _IBUG.items() for part, rows in parts.items()}
PLACES |= {"nose tip": (30,), "upper lip top": (51,), "upper lip edge": (62,), "lower lip edge": (66,)}
PLACES |= {"lower lip bottom": (57,), "chin": (8,)}
LANDMARKS = tuple(PLACES)
"""The landmarks that have a name here, each the mean of rows of `Rendering.landmarks`; left and right
are the viewer's."""


def named(points: np.ndarray) -> np.ndarray:
    """Values of the landmarks that have a name [..., L, K] from those of all [..., 70, K]."""
    return np.stack([points[..., list(rows), :].mean(-2) for rows in PLACES.values()], -2)


def _paired(*pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The same pairs of landmarks on the left and on the right."""
    return tuple(
        (
            f"{side} {a}" if f"{side} {a}" in LANDMARKS else a,
            f"{side} {b}" if f"{side} {b}" in LANDMARKS else b,
        )
        for side in _SIDES
        for a, b in pairs
    )


DISTANCES = _paired(
    ("inner eyebrow", "inner eye corner"),
    ("eyebrow middle", "upper lid"),
    ("outer eyebrow", "outer eye corner"),
    ("upper lid", "lower lid"),
    ("lower lid", "cheek"),
    ("nose wing", "inner eye corner"),
    ("lip corner", "outer eye corner"),
    ("lip corner", "jaw"),
    ("lip corner", "nose wing"),
    ("upper lip", "lower lip"),
) + (
    ("left inner eyebrow", "right inner eyebrow"),
    ("left lip corner", "right lip corner"),
    ("left nose wing", "right nose wing"),
    ("nose tip", "upper lip top"),
    ("upper lip top", "upper lip edge"),
    ("upper lip edge", "lower lip edge"),
    ("lower lip edge", "lower lip bottom"),
    ("lower lip bottom", "chin"),
    ("nose tip", "chin"),
)
HEIGHTS = _paired(
    ("inner eyebrow", "outer eyebrow"),
    ("inner eyebrow", "eyebrow middle"),
    ("outer eyebrow", "inner eye corner"),
    ("lip corner", "upper lip edge"),
    ("lip corner", "lower lip bottom"),
    ("lower lid", "outer eye corner"),
)
MEASURES = (
    *((f"distance from {a} to {b}", (a, b)) for a, b in DISTANCES),
    *((f"height of {a} over {b}", (a, b)) for a, b in HEIGHTS),
    *((f"rise of {name}", (name,)) for name in LANDMARKS),
    *((f"change at {name}", (name,)) for name in LANDMARKS),
)
"""What is measured on an image, and the landmarks where one looks for it: a name and one or two places."""

SPANS = ("very small", "small", "medium", "large", "very large")


def _places(*names: str) -> tuple[int, ...]:
    """Rows of the landmarks of these names; a name without a side means both sides."""
    wanted = {f"{side} {name}" for name in names for side in _SIDES} | set(names)
    return tuple(k for k, name in enumerate(LANDMARKS) if name in wanted)


AU_PLACES = (
    {
        1: _places("inner eyebrow"),
        2: _places("outer eyebrow"),
        4: _places("inner eyebrow", "eyebrow middle"),
        5: _places("upper lid"),
        6: _places("cheek", "lower lid"),
        7: _places("upper lid", "lower lid"),
        8: _places("upper lip edge", "lower lip edge"),
        9: _places("nose wing", "nose tip"),
        10: _places("upper lip", "upper lip top"),
        11: _places("nose wing"),
        16: _places("lower lip", "lower lip bottom"),
        17: _places("chin", "lower lip bottom"),
        21: _places("chin"),
        22: _places("upper lip top", "lower lip bottom"),
        23: _places("lip corner", "upper lip top", "lower lip bottom"),
        24: _places("upper lip edge", "lower lip edge"),
        26: _places("chin"),
        27: _places("chin", "upper lip edge", "lower lip edge"),
        43: _places("upper lid"),
    }
    | dict.fromkeys((12, 14, 15, 20), _places("lip corner"))
    | dict.fromkeys((18, 19, 25, 28), _places("upper lip edge", "lower lip edge"))
)
"""Which landmarks an AU's name speaks of."""


PARTS = tuple(
    _places(*names)
    for names in (
        *((f"{side} inner eyebrow", f"{side} eyebrow middle", f"{side} outer eyebrow") for side in _SIDES),
        *((f"{side} upper lid", f"{side} lower lid", f"{side} cheek") for side in _SIDES),
        ("nose tip", "nose wing", "upper lip top"),
        *((f"{side} lip corner", f"{side} upper lip", f"{side} lower lip") for side in _SIDES),
        ("upper lip edge", "lower lip edge", "lower lip bottom", "chin"),
    )
)
"""The landmarks of eight parts of a face."""


def measure(landmarks: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Values of `MEASURES` [n, M] from landmarks [n, L, 2] in pixels and `motion` [n, L, 3]."""
    index = {name: k for k, name in enumerate(LANDMARKS)}
    a, b = (landmarks[:, [index[pair[k]] for pair in DISTANCES]] for k in (0, 1))
    over, under = (landmarks[:, [index[pair[k]] for pair in HEIGHTS], 1] for k in (0, 1))
    return np.concatenate([np.linalg.norm(a - b, axis=2), under - over, -motion[..., 1], motion[..., 2]], 1)


def to_spans(values: np.ndarray) -> np.ndarray:
    """Cut measures [n, M] into five spans each, equally frequent in these faces: int [n, M]."""
    return (values > np.quantile(values, (0.2, 0.4, 0.6, 0.8), axis=0)[:, None]).sum(0)
