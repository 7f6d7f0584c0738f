"""The mean head (`head.npz`), and its surface unrolled on a cylinder, on which skin and hair are painted.

Coordinates are metres: x to the subject's left, y backwards, z up; the origin lies between the eyes. What is
painted in the coordinates of the mean head moves with the skin.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from .raster import rasterise

_FILE = Path(__file__).with_name("head.npz")
with np.load(_FILE, allow_pickle=False) as _arrays:
    _HEAD = {name: _arrays[name] for name in _arrays.files}

MEAN = _HEAD["mean"]  # [V, 3]
BASIS = _HEAD["basis"].astype(np.float32).reshape(len(_HEAD["basis"]), -1)  # [4 + 56, V * 3]
UNITS = _HEAD["units"].astype(np.float32).reshape(len(_HEAD["units"]), -1)  # [52, V * 3]
UNIT_NAMES = {str(name): k for k, name in enumerate(_HEAD["names"])}
FACES = _HEAD["faces"].astype(np.int32)
PART = _HEAD["part"].astype(np.int32)  # of each vertex: a key of `PARTS`
PARTS = ("skin", "tongue", "left eye", "right eye", "upper teeth", "lower teeth")
LANDMARK_VERTICES = _HEAD["landmarks"].astype(int)  # iBUG's 68
LIPS, INSIDE, LIGHT = (_HEAD[name].astype(np.float32) / 255 for name in ("lips", "inside", "light"))
EYE_CENTRES = np.stack([MEAN[k == PART].mean(0) for k in (2, 3)])
AXIS, WIDE, LOW, HIGH = 0.075, 2.05, -0.165, 0.125
"""The cylinder: its axis' y, how far it reaches to both sides (radians), and from where to where (z)."""


@dataclass(frozen=True)
class Canvas:
    """Maps [H, W] of the mean head's surface: `x`, its distance `side` from the middle, `y`, `z`, how red the
    lips are, the distance `rim` from the eyes' openings (metres), and each vertex' place `uv` [V, 2]."""

    x: np.ndarray
    side: np.ndarray
    y: np.ndarray
    z: np.ndarray
    lips: np.ndarray
    rim: np.ndarray
    uv: np.ndarray


@cache
def canvas(height: int) -> Canvas:
    """The canvas of so many rows; a millimetre takes about `height / 290`."""
    width = round(height * 1.37)
    angle = np.arctan2(MEAN[:, 0], AXIS - MEAN[:, 1]).clip(-WIDE, WIDE)
    uv = np.column_stack([(angle / WIDE + 1) / 2 * width, (HIGH - MEAN[:, 2]) / (HIGH - LOW) * height])
    radius = np.hypot(MEAN[:, 0], AXIS - MEAN[:, 1])
    skin = FACES[np.isin(PART[FACES[:, 0]], (0, 2, 3)) & (np.ptp(uv[FACES, 0], axis=1) < width / 3)]
    points = np.column_stack([uv, -radius]).astype(np.float32)
    _, triangle, weights = rasterise(points, skin, height, width, 0)
    corners = skin[np.maximum(triangle, 0)]
    weights = np.concatenate([1 - weights.sum(2, keepdims=True), weights], 2)[..., None]
    place = (MEAN[corners] * weights).sum(2)
    angle, z = np.meshgrid(np.linspace(-WIDE, WIDE, width), np.linspace(HIGH, LOW, height))
    outside = np.stack([0.08 * np.sin(angle), AXIS - 0.1 * np.cos(angle), z], 2)
    place = np.where((triangle >= 0)[..., None], place, outside).astype(np.float32)
    lips = (LIPS[corners] * weights[..., 0]).sum(2) * (triangle >= 0)
    eye = (triangle >= 0) & (PART[corners[..., 0]] >= 2)
    rim = cv2.distanceTransform((~eye).astype(np.uint8), cv2.DIST_L2, 5) * (HIGH - LOW) / height
    x, y, z = np.moveaxis(place, 2, 0)
    blurred = cv2.GaussianBlur(lips.astype(np.float32), (0, 0), height / 300)
    return Canvas(x, np.abs(x), y, z, blurred, rim, uv.astype(np.float32))
