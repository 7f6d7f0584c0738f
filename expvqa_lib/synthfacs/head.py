"""The mean head (`assets/head`), its triangles as pixels, and its skin unrolled on a cylinder to paint on.

Coordinates are metres: x to the subject's left, y backwards, z up; the origin lies between the eyes. What is
painted in the coordinates of the mean head moves with the skin.
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numba
import numpy as np
from scipy.sparse import csr_array

_HEAD = dict(np.load(Path(__file__).parents[1] / "assets/head/head.npz", allow_pickle=False))

MEAN, FACES, PART = _HEAD["mean"], _HEAD["faces"].astype(np.int32), _HEAD["part"].astype(np.int32)
"""Vertices [V, 3], triangles [T, 3], and what each vertex is of: 0 skin, 1 tongue, 2 and 3 the subject's left
and right eye, 4 and 5 upper and lower teeth."""
BASIS, UNITS = (_HEAD[name].astype(np.float32).reshape(len(_HEAD[name]), -1) for name in ("basis", "units"))
"""What the traits and components of a shape [60, V * 3] and the face units [52, V * 3] move."""
UNIT_NAMES = {str(name): k for k, name in enumerate(_HEAD["names"])}
LANDMARK_VERTICES = _HEAD["landmarks"].astype(int)  # iBUG's 68, then two cheeks
LIPS, INSIDE, LIGHT = (_HEAD[name].astype(np.float32) / 255 for name in ("lips", "inside", "light"))
EYE_CENTRES = np.stack([MEAN[k == PART].mean(0) for k in (2, 3)])
AXIS, WIDE, LOW, HIGH = 0.075, 2.05, -0.165, 0.125
"""The cylinder: its axis' y, how far it reaches to both sides (radians), and from where to where (z)."""
_TOUCHING = csr_array((np.ones(FACES.size, np.float32), (FACES.ravel(), np.arange(FACES.size) // 3)))


@numba.njit(cache=True, fastmath=True)
def rasterise(
    points: np.ndarray, faces: np.ndarray, values: np.ndarray, height: int, width: int, facing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw triangles [T, 3] of points [V, 3] (pixels x and y, depth; float32), the nearest on top.

    Args:
        values: of each point [V, K], float32.
        facing: 1 leaves out triangles that look away, 0 draws both sides.

    Returns:
        Depth float32 [H, W] (1e9: nothing there), triangle int32 [H, W] (-1), values float32 [H, W, K].
    """
    depth = np.full((height, width), np.float32(1e9), np.float32)
    triangle, weights = np.full(depth.shape, -1, np.int32), np.zeros((height, width, 2), np.float32)
    for t in range(len(faces)):
        a, b, c = faces[t]
        ax, ay, az = points[a]
        bx, by, bz = points[b, 0] - ax, points[b, 1] - ay, points[b, 2] - az
        cx, cy, cz = points[c, 0] - ax, points[c, 1] - ay, points[c, 2] - az
        area = bx * cy - cx * by
        if facing * area > 0 or abs(area) < 1e-9:
            continue
        left, right = int(np.ceil(ax + min(0, bx, cx) - 0.5)), int(ax + max(0, bx, cx) - 0.5)
        top, bottom = int(np.ceil(ay + min(0, by, cy) - 0.5)), int(ay + max(0, by, cy) - 0.5)
        for y in range(max(0, top), min(height - 1, bottom) + 1):
            for x in range(max(0, left), min(width - 1, right) + 1):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                u, v = (px * cy - cx * py) / area, (bx * py - px * by) / area
                z = az + u * bz + v * cz
                if u >= 0 and v >= 0 and u + v <= 1 and z < depth[y, x]:
                    depth[y, x], triangle[y, x], weights[y, x, 0], weights[y, x, 1] = z, t, u, v
    found = np.zeros((height, width, values.shape[1]), np.float32)
    for y in range(height):
        for x in range(width):
            if triangle[y, x] >= 0:
                (a, b, c), u, v = faces[triangle[y, x]], weights[y, x, 0], weights[y, x, 1]
                for k in range(values.shape[1]):
                    found[y, x, k] = (1 - u - v) * values[a, k] + u * values[b, k] + v * values[c, k]
    return depth, triangle, found


def vertex_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3] of the head's points [V, 3]: the mean of their triangles' weighted by area."""
    a, b, c = points[FACES.T]
    normals = _TOUCHING @ np.cross(b - a, c - a)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + np.float32(1e-12))


@cache
def canvas(height: int) -> SimpleNamespace:
    """The canvas of so many rows; a millimetre takes about `height / 290`.

    Returns:
        Maps [H, W] of the mean head's surface: `x`, its distance `side` from the middle, `y`, `z`, how red
        the `lips` are, the distance `rim` from the eyes' openings (metres); each vertex' place `uv` [V, 2].
    """
    width = round(height * 1.37)
    angle = np.arctan2(MEAN[:, 0], AXIS - MEAN[:, 1]).clip(-WIDE, WIDE)
    uv = np.column_stack([(angle / WIDE + 1) / 2 * width, (HIGH - MEAN[:, 2]) / (HIGH - LOW) * height])
    skin = FACES[np.isin(PART[FACES[:, 0]], (0, 2, 3)) & (np.ptp(uv[FACES, 0], axis=1) < width / 3)]
    points = np.column_stack([uv, -np.hypot(MEAN[:, 0], AXIS - MEAN[:, 1])]).astype(np.float32)
    values = np.column_stack([MEAN, LIPS, PART >= 2]).astype(np.float32)
    _, triangle, found = rasterise(points, skin, values, height, width, 0)
    angle, z = np.meshgrid(np.linspace(-WIDE, WIDE, width), np.linspace(HIGH, LOW, height))
    outside = np.stack([0.08 * np.sin(angle), AXIS - 0.1 * np.cos(angle), z], 2).astype(np.float32)
    x, y, z = np.moveaxis(np.where((triangle >= 0)[..., None], found[..., :3], outside), 2, 0)
    rim = cv2.distanceTransform((found[..., 4] < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    lips, rim = cv2.GaussianBlur(found[..., 3], (0, 0), height / 300), rim * (HIGH - LOW) / height
    return SimpleNamespace(x=x, side=np.abs(x), y=y, z=z, lips=lips, rim=rim, uv=uv.astype(np.float32))
