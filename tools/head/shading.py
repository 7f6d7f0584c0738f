"""The light on a head, pixel by pixel: skin, eyes and teeth under one lamp and the sky, compiled by numba."""

import numba
import numpy as np

from .head import AXIS

_compiled = numba.njit(cache=True, fastmath=True)
PUPIL, IRIS = 0.17, 0.43  # radians of the eyeball


@_compiled
def _unit(x: float) -> float:
    return min(1.0, max(0.0, x))


@_compiled
def _read(maps: np.ndarray, u: float, v: float, values: np.ndarray) -> None:
    """Values of maps [H, W, K] between four pixels."""
    x, y = min(max(u - 0.5, 0), maps.shape[1] - 1.001), min(max(v - 0.5, 0), maps.shape[0] - 1.001)
    i, j = int(x), int(y)
    x, y = x - i, y - j
    for k in range(maps.shape[2]):
        above = maps[j, i, k] * (1 - x) + maps[j, i + 1, k] * x
        below = maps[j + 1, i, k] * (1 - x) + maps[j + 1, i + 1, k] * x
        values[k] = above * (1 - y) + below * y


@_compiled
def _lit(shadow: np.ndarray, x: float, y: float, depth: float) -> float:
    """The share of the lamp's light that reaches a place, from the 4 pixels around it: a soft edge."""
    i, j = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    x, y = x - 0.5 - i, y - 0.5 - j
    lit = 0.0
    for row in range(2):
        for column in range(2):
            weight = (y if row else 1 - y) * (x if column else 1 - x)
            inside = 0 <= j + row < shadow.shape[0] and 0 <= i + column < shadow.shape[1]
            near = shadow[j + row, i + column] if inside else np.float32(1e9)
            lit += weight * _unit((near - depth + 0.003) / 0.004)
    return lit


@_compiled
def _eye(x: float, y: float, z: float, iris: np.ndarray, colour: np.ndarray) -> float:
    """Paint the eyeball at a direction from its middle; the share of light below the upper lid."""
    angle = np.arccos(min(1.0, -y / np.sqrt(x * x + y * y + z * z)))
    white, pupil = _unit((angle - IRIS) / 0.05), _unit((angle - PUPIL) / 0.03)
    rays = (0.85 + 0.3 * np.sin(23 * np.arctan2(z, x)) * np.sin(40 * angle)) * (
        0.35 + 0.65 * _unit((IRIS - angle) / 0.08)
    )
    veins = 1 - 0.25 * _unit((angle - 0.55) / 0.5)
    for k in range(3):
        ball = (0.72, 0.66 * veins, 0.62 * veins)[k]
        colour[k] = white * ball + (1 - white) * (iris[k] * rays * pupil + 0.004)
    return min(1.0, max(0.3, 1 - 55 * (z + 0.0005)))


@_compiled
def _surface(
    kind: int, a: np.ndarray, paint: np.ndarray, eyes: np.ndarray, iris: np.ndarray, turn: np.ndarray,
    colour: np.ndarray, n: np.ndarray, p: np.ndarray,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Fill a pixel's colour and normal; return the light that reaches it, gloss, sharpness, share of hair."""
    n[0], n[1], n[2] = a[3], a[4], a[5]
    if kind == 0:
        _read(paint, a[9], a[10], p)
        scale = 1 / np.sqrt(a[6] ** 2 + (AXIS - a[7]) ** 2)
        for k in range(3):
            along = (turn[k, 0] * (AXIS - a[7]) + turn[k, 1] * a[6]) * scale
            n[k] -= p[3] * along + p[4] * turn[k, 2]
            colour[k] = p[k]
        if a[12] > 0.5 and a[7] > -0.0295:
            colour[0], colour[1], colour[2] = 0.10, 0.014, 0.012
            return 0.5 * a[11], 0.05, 22.0, 0.0
        return a[11], 0.10 + 0.22 * p[6], 22.0, p[5]
    if kind == 1:
        colour[0], colour[1], colour[2] = 0.42, 0.11, 0.10
        return 0.75, 0.25, 22.0, 0.0
    if kind < 4:
        e = kind - 2
        return _eye(a[6] - eyes[e, 0], a[7] - eyes[e, 1], a[8] - eyes[e, 2], iris, colour), 1.1, 160.0, 0.0
    gap = min(1.0, 0.55 + 1.6 * abs(np.sin(a[6] * np.pi / 0.0078)))
    colour[0], colour[1], colour[2] = 0.70 * gap, 0.65 * gap, 0.55 * gap
    return min(1.0, max(0.12, 1.12 - abs(a[6]) / 0.023)) * (1.0 if kind == 4 else 0.75), 0.35, 60.0, 0.0


@_compiled
def shade(
    picture: np.ndarray, triangle: np.ndarray, weights: np.ndarray, faces: np.ndarray, part: np.ndarray,
    attributes: np.ndarray, paint: np.ndarray, eyes: np.ndarray, iris: np.ndarray, turn: np.ndarray,
    lamp: np.ndarray, light: np.ndarray, shadow: np.ndarray, to_shadow: np.ndarray,
) -> None:  # fmt: skip
    """Shade the pixels of a head in `picture` [H, W, 3], in place, in linear light.

    Args:
        triangle, weights: as of `rasterise`.
        attributes: of each vertex [V, 13]: place, normal, mean head's coordinates, place on the canvas, light
            from everywhere, inside of the mouth.
        paint: maps of the canvas [h, w, 7]: albedo, slopes to the left and up, hair, lips.
        eyes: their middles in the mean head [2, 3].
        turn: the head's rotation [3, 3].
        lamp: the direction to the lamp, a unit vector.
        light: colours [2, 3] of lamp and sky.
        shadow, to_shadow: depth as the lamp sees it, and the map [3, 4] from places to its pixels and depth.
    """
    a, p, colour, n, spot = np.empty(13), np.empty(7), np.empty(3), np.empty(3), np.empty(3)
    half = lamp - np.array([0.0, 1.0, 0.0])  # between lamp and camera
    half = half / np.sqrt((half**2).sum())
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            if triangle[y, x] < 0:
                continue
            corners, second, third = faces[triangle[y, x]], weights[y, x, 0], weights[y, x, 1]
            for k in range(13):
                first = attributes[corners[0], k]
                a[k] = (
                    first
                    + second * (attributes[corners[1], k] - first)
                    + third * (attributes[corners[2], k] - first)
                )
            kind = part[corners[0]]
            reach, gloss, rough, hair = _surface(kind, a, paint, eyes, iris, turn, colour, n, p)
            length, facing, between = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9, 0.0, 0.0
            for k in range(3):
                n[k] /= length
                facing += n[k] * lamp[k]
                between += n[k] * half[k]
                spot[k] = to_shadow[k, 3]
                for axis in range(3):
                    spot[k] += to_shadow[k, axis] * (a[axis] + 0.004 * a[3 + axis])
            lit = _lit(shadow, spot[0], spot[1], spot[2])
            lit = lit if kind in (0, 2, 3) else 0.35 + 0.65 * lit
            shine = max(0.0, between) ** rough * gloss * lit * (1 - hair)
            shine += hair * 0.6 * max(0.0, 1 - abs(n[2] - 0.35) * 3.5) * lit * colour[0]
            rim = 0.06 * (1 - max(0.0, -n[1])) ** 4 * (1 - hair) * reach
            reach *= (0.65 + 0.35 * reach) * (0.62 + 0.38 * n[2])
            for k in range(3):
                wrap = (0.30, 0.20, 0.10)[k]  # light goes deeper into skin the redder it is
                key = _unit((facing + wrap) / (1 + wrap)) * lit + shine / (colour[k] + 1e-3)
                picture[y, x, k] = colour[k] * (light[1, k] * reach + light[0, k] * key) + rim * light[1, k]
