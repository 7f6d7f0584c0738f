"""Action units as face units and furrows.

The face units are ARKit's 52, as Mika Suominen modelled them for MakeHuman. Which of them an action unit
moves follows the FACS manual's description of the movement and Ozel's table from FACS to ARKit (2020, "FACS
Cheat Sheet").
"""

from functools import cache

import cv2
import numpy as np

from .head import UNIT_NAMES, canvas

UNITS_OF_AU: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.25},
    2: {"browOuterUp": 1.2},
    4: {"browDown": 1.25},
    5: {"eyeWide": 1.3},
    6: {"cheekSquint": 1.25, "eyeSquint": 0.35},
    7: {"eyeSquint": 1.3, "eyeBlink": 0.12},
    9: {"noseSneer": 1.3, "browDown": 0.3},
    10: {"mouthUpperUp": 1.0, "noseSneer": 0.25},
    11: {"mouthUpperUp": 0.35, "noseSneer": 0.35},
    12: {"mouthSmile": 1.05, "mouthStretch": 0.25},
    14: {"mouthDimple": 1.35, "mouthPress": 0.3, "mouthFrown": 0.3},
    15: {"mouthFrown": 1.25},
    16: {"mouthLowerDown": 1.0},
    17: {"mouthShrugLower": 1.2, "mouthShrugUpper": 0.25},
    18: {"mouthPucker": 1.0},
    19: {"tongueOut": 1.0, "jawOpen": 0.35},
    20: {"mouthStretch": 1.1},
    22: {"mouthFunnel": 1.0},
    23: {"mouthPress": 0.5, "mouthRollLower": 0.45, "mouthRollUpper": 0.45},
    24: {"mouthPress": 1.1, "mouthPucker": 0.3},
    25: {"jawOpen": 0.12, "mouthLowerDown": 0.55, "mouthUpperUp": 0.4},
    26: {"jawOpen": 0.45},
    27: {"jawOpen": 1.0},
    28: {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    43: {"eyeBlink": 1.0},
}
"""The face units of each AU at its strongest; a name without side stands for both."""

AUS = tuple(UNITS_OF_AU)
"""The AUs that can be rendered."""


LEVELS = {"A": 0.1, "B": 0.25, "C": 0.5, "D": 0.75, "E": 1.0}
"""FACS' levels of intensity (trace, slight, marked, severe, maximum) as intensities of AUs."""


def unit_weights(aus: dict[int, float], lateral: dict[int, float], gaze: tuple[float, float]) -> np.ndarray:
    """Weights of the face units [52] for AU intensities, their sides, and a gaze (image's right, up)."""
    weights, (right, up) = np.zeros(len(UNIT_NAMES), np.float32), gaze
    for au, intensity in aus.items():
        side = lateral.get(au, 0.0)
        shares = {"": 1.0, "Left": min(1.0, 1 + side), "Right": min(1.0, 1 - side)}
        for unit, weight in UNITS_OF_AU[au].items():
            for name in {unit + ending for ending in shares} & UNIT_NAMES.keys():
                weights[UNIT_NAMES[name]] += intensity * weight * shares[name.removeprefix(unit)]
    ways = {"InRight": right, "OutLeft": right, "InLeft": -right, "OutRight": -right}
    for way, amount in (ways | {"UpLeft": up, "UpRight": up, "DownLeft": -up, "DownRight": -up}).items():
        weights[UNIT_NAMES[f"eyeLook{way}"]] = max(0.0, amount)
    return weights.clip(0, 1.35)


def bump(x: np.ndarray, width: float) -> np.ndarray:
    """A bell: 1 at 0, 0.37 at `width`."""
    return np.exp(-((x / width) ** 2))


def ramp(x: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 from `end` on."""
    return ((x - start) / (end - start)).clip(0, 1)


@cache
def furrows(height: int) -> dict[int, np.ndarray]:
    """Maps [H, W] of the furrows that an AU makes, 1 where they are deepest; age leaves them at rest, too."""
    c = canvas(height)
    x, z = c.side, c.z
    uneven = 0.0022 * np.sin(c.x * 55 + 1) + 0.0012 * np.sin(c.x * 170)
    rows = _waves((z + uneven - x * x / 0.05) / 0.0105, 4) * (1 - ((z - 0.046) / 0.027) ** 2).clip(0, 1)
    corner = np.hypot(x - 0.036, z + 0.001)  # the outer corner of the eye
    fold = x - (0.0185 + 0.42 * (-0.046 - z))  # from the nose's wing to the lips' corner
    maps = {
        1: rows * bump(x, 0.026),
        2: rows * bump(x - 0.040, 0.018),
        4: (bump(x - 0.0075 - 0.1 * np.maximum(z - 0.016, 0), 0.0019) + 0.4 * bump(x, 0.0013))
        * bump(z - 0.018, 0.012)
        + 0.5 * bump(z - 0.002, 0.0016) * bump(x, 0.012),
        6: _waves(np.arctan2(z + 0.001, x - 0.036) * 1.7 + 0.15, 4)
        * bump(corner - 0.024, 0.009)
        * ramp(x, 0.040, 0.052)
        + 0.5 * bump(z + 0.017 - 0.10 * np.abs(x - 0.034), 0.0017) * bump(x - 0.036, 0.014),
        7: 0.8 * bump(z + 0.0095 - 6 * (x - 0.034) ** 2, 0.0014) * bump(x - 0.034, 0.012),
        9: _waves((z - 0.25 * x) / 0.0055, 3) * bump(z + 0.006, 0.010) * bump(x, 0.012)
        + 0.7 * bump(fold + 0.003, 0.0022) * bump(z + 0.044, 0.010),
        11: bump(fold, 0.0024) * (1 - ((z + 0.050) / 0.013) ** 2).clip(0, 1),
        12: bump(fold, 0.0024) * (1 - ((z + 0.058) / 0.021) ** 2).clip(0, 1),
        14: 1.1 * bump(np.hypot(x - 0.031, (z + 0.0745) * 0.7), 0.0036),
        15: bump(x - 0.0285 + 0.25 * (z + 0.083), 0.0020) * bump(z + 0.085, 0.007),
        17: 0.9 * bump(np.hypot(x, (z + 0.1045) * 1.1), 0.012) * _waves(x / 0.0052 + 0.5) * _waves(z / 0.0056)
        + 0.5 * bump(z + 0.0935 - 3 * x * x, 0.0018) * bump(x, 0.016),
        20: 0.6 * bump(np.hypot(x - 0.034, (z + 0.076) * 0.5) - 0.004, 0.0018),
        23: _waves(x / 0.0052, 3) * (bump(z + 0.0625, 0.0045) + bump(z + 0.0905, 0.0035)) * bump(x, 0.018),
        43: 0.6 * bump(z - 0.0075 + 8 * (x - 0.034) ** 2, 0.0013) * bump(x - 0.034, 0.013),
    }
    maps[10] = 0.8 * maps[12]
    return {
        au: cv2.GaussianBlur(depth.astype(np.float32), (0, 0), height / 500) for au, depth in maps.items()
    }


def _waves(phase: np.ndarray, sharpness: int = 1) -> np.ndarray:
    return (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** sharpness
