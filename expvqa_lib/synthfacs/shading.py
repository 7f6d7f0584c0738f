"""The light on a head, pixel by pixel: skin, eyes, tongue and teeth under one lamp and the sky."""

import cv2
import numpy as np

from .expression import ramp
from .head import AXIS, EYE_CENTRES

PUPIL, IRIS = 0.17, 0.43  # radians of the eyeball
WRAP = np.array((0.30, 0.20, 0.10), np.float32)  # light goes deeper into skin the redder it is


MATERIALS = np.float32(
    [
        (0.10, 22, 1, 0, 0, 0),
        (0.25, 22, 0.75, 0.42, 0.11, 0.10),
        (1.1, 160, 1, 0, 0, 0),
        (1.1, 160, 1, 0, 0, 0),
        (0.35, 60, 1, 0.70, 0.65, 0.55),
        (0.35, 60, 0.5, 0.70, 0.65, 0.55),
        (0.05, 22, 0.5, 0.10, 0.014, 0.012),
    ]
)
"""Gloss, its sharpness, share of light and colour of each of `head.PART`, then of the mouth's inside."""


def shade(kind, values, albedo, relief, iris, turn, lamp, light, shadow, to_shadow) -> np.ndarray:
    """The colours of the N pixels of a head in a picture [H, W], in linear light: [N, 3].

    Args:
        kind: the part that every pixel shows [H, W], as `head.PART`; -1: not the head.
        values: of every pixel [H, W, 13]: place, normal, mean head's coordinates, place on the canvas, light
            from everywhere, inside of the mouth.
        albedo: of the canvas [h, w, 3].
        relief: of the canvas [h, w, 4]: slopes to the left and up, hair, lips.
        iris: its colour.
        turn: the head's rotation [3, 3].
        lamp: the direction to the lamp, a unit vector.
        light: colours [2, 3] of lamp and sky.
        shadow, to_shadow: depth as the lamp sees it, and the map [3, 4] from places to its pixels and depth.
    """
    shown, where = kind >= 0, [np.ascontiguousarray(values[..., k] - 0.5) for k in (9, 10)]
    colour, bumps = (cv2.remap(paint, *where, cv2.INTER_LINEAR)[shown] for paint in (albedo, relief))
    kind, values = kind[shown], values[shown]
    place, normal, mean, (reach, inside) = *np.split(values[:, :9], 3, 1), values[:, 11:13].T
    skin = kind == 0
    kind = np.where(skin & (inside > 0.5) & (mean[:, 1] > -0.0295), 6, kind)
    around = (AXIS - mean[:, 1])[:, None] * turn[:, 0] + mean[:, :1] * turn[:, 1]
    around = bumps[:, :1] * around / np.hypot(mean[:, 0], AXIS - mean[:, 1])[:, None]
    normal = normal - skin[:, None] * (around + bumps[:, 1:2] * turn[:, 2])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    hair, lips = bumps[:, 2:].T * (kind == 0)
    gloss, sharp, open_, *_ = MATERIALS[kind].T
    colour = np.where((kind == 0)[:, None], colour, MATERIALS[kind, 3:])
    reach = np.where(skin, reach, 1) * open_
    for eye, centre in enumerate(EYE_CENTRES.astype(np.float32), 2):
        colour[kind == eye], reach[kind == eye] = _eye(mean[kind == eye] - centre, np.float32(iris))
    teeth, x = (kind == 4) | (kind == 5), mean[:, 0]
    colour[teeth] *= np.minimum(1, 0.55 + 1.6 * np.abs(np.sin(x[teeth] * np.pi / 0.0078)))[:, None]
    reach[teeth] *= (1.2 - np.abs(x[teeth]) / 0.026).clip(0.25, 1)

    x, y, depth = ((place + 0.004 * normal) @ to_shadow[:, :3].T + to_shadow[:, 3]).astype(np.float32).T
    pixels = (np.resize(v - 0.5, (-(-len(v) // 128), 128)) for v in (x, y))
    near = cv2.remap(shadow, *pixels, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = ((near.ravel()[: len(depth)] - depth + 0.004) / 0.010).clip(0, 1)
    lit = np.where((kind == 1) | teeth, 0.5 + 0.5 * lit, lit)
    half = lamp - np.float32((0, 1, 0))  # between lamp and camera
    between = np.maximum(normal @ (half / np.linalg.norm(half)), 1e-6)
    shine = np.exp(sharp * np.log(between)) * (gloss + 0.22 * lips) * (1 - hair)
    shine += 0.6 * hair * (1 - np.abs(normal[:, 2] - 0.35) * 3.5).clip(0) * colour[:, 0]
    rim = 0.06 * np.square(np.square(1 + np.minimum(normal[:, 1], 0))) * (1 - hair) * reach
    reach *= (0.4 + 0.6 * reach) * (0.62 + 0.38 * normal[:, 2])
    key = (((normal @ lamp)[:, None] + WRAP) / (1 + WRAP)).clip(0, 1) * lit[:, None]
    from_lamp, from_sky = colour * key + (shine * lit)[:, None], colour * reach[:, None] + rim[:, None]
    return from_lamp * light[0] + from_sky * light[1]


def _eye(direction: np.ndarray, iris: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the eyeball in directions [N, 3] from its middle, and the light below the upper lid [N]."""
    x, y, z = direction.T
    angle = np.arccos((-y / np.linalg.norm(direction, axis=1)).clip(-1, 1))
    rays = 0.85 + 0.3 * np.sin(23 * np.arctan2(z, x)) * np.sin(40 * angle)
    rays = rays * (0.35 + 0.65 * ramp(IRIS - angle, 0, 0.08)) * ramp(angle, PUPIL, PUPIL + 0.03)
    ball = np.outer(1 - 0.25 * ramp(angle, 0.55, 1.05), (0.0, 0.54, 0.50)) + (0.60, 0, 0)
    white = ramp(angle, IRIS, IRIS + 0.05)[:, None]
    return white * ball + (1 - white) * (rays[:, None] * iris + 0.004), (0.9725 - 55 * z).clip(0.3, 1)
