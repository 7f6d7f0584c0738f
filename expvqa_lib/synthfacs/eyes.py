"""Drawing of eyes, lids and brows in face units (see `face`); `side` is -1 left, 1 right."""

import numpy as np

from .face import EYES
from .painter import Painter, circle, curve, mix


def paint_brow(p: Painter, side: int) -> list[tuple[float, float]]:
    """Paint a brow; return its landmarks: inner end, middle, outer end."""
    up1, up2, down = (p.strength(au, side) for au in (1, 2, 4))
    base, pull = -0.40 - 0.04 * p.who.brow_height, 0.06 * down
    points = [
        (
            side * (0.17 - pull),
            base + 0.02 - 0.16 * up1 - 0.02 * up2 + 0.15 * down + 0.05 * p.strength(9, side),
        ),
        (side * (0.42 - pull), base - 0.09 - 0.03 * p.who.brow_arch - 0.06 * up1 - 0.12 * up2 + 0.13 * down),
        (side * (0.70 - 0.4 * pull), base + 0.02 - 0.15 * up2 + 0.05 * down),
    ]
    first, middle, last = np.asarray(points)
    line = curve([first, 2 * middle - 0.5 * (first + last), last], 11)  # through the middle
    half = (3.4 + 1.1 * p.who.brow_thickness) / 96 / 0.9 * np.linspace(1.0, 0.25, 11)[:, None] * [[0, 1]]
    p.fill(np.vstack([line - half, (line + half)[::-1]]), mix(mix(p.hair, (30, 22, 20), 0.25), p.skin, 0.08))
    return points


def paint_eye(p: Painter, side: int) -> list[tuple[float, float]]:
    """Paint an eye; return its landmarks: inner and outer corner, upper and lower lid, iris."""
    wide, tight, cheek, closed = (p.strength(au, side) for au in (5, 7, 6, 43))
    x, y = side * (0.40 + 0.035 * p.who.eye_spacing), -0.13
    tilt, rest = 0.025 * p.who.eye_tilt, 1 + 0.12 * p.who.eye_size
    upper = (0.125 * rest + 0.095 * wide - 0.055 * tight) * (1 - closed) - 0.055 * closed
    lower = (0.080 * rest - 0.062 * tight - 0.022 * cheek) * (1 - closed) + 0.055 * closed
    middle_y, width = y - 0.3 * tilt, 0.215 + 0.02 * p.who.eye_size
    top, bottom = middle_y - upper, middle_y + lower
    inner, outer = (x - side * width, y + 0.01), (x + side * width, y - 0.015 - tilt)
    upper_lid, lower_lid = (
        curve([inner, (x - side * near * width, edge), (x + side * far * width, edge), outer], 11)
        for near, far, edge in ((0.6, 0.55, top - 0.55 * upper), (0.5, 0.6, bottom + 0.45 * lower))
    )
    if cheek:  # a bulge under the eye and crow's feet; else the bag of age
        bulge = curve(
            [(x - side * 0.20, y + 0.20), (x, y + 0.30 - 0.06 * cheek), (x + side * 0.27, y + 0.13)]
        )
        below = [(x + side * 0.30, y + 0.20), (x, y + 0.46), (x - side * 0.2, y + 0.26)]
        p.fill(np.vstack([bulge, curve(below)]), p.light)
        p.stroke(bulge, p.crease(0.95 * cheek), 1.5)
        for dy in (-0.07, 0.0, 0.07):
            foot = [(x + side * (width + 0.05), y + 0.6 * dy), (x + side * (width + 0.19), y + 1.7 * dy)]
            p.stroke(foot, p.crease(0.95 * cheek), 1.1)
    elif p.who.age > 0.4:
        bag = [(-0.17, 0.18), (0, 0.24), (0.16, 0.16)]
        p.fold(bag, p.crease(0.5 * (p.who.age - 0.3)), 1, side, (x, y))
    p.stroke(upper_lid[1:-1] - [0, 0.055 - 0.03 * wide + 0.02 * closed], p.crease(0.45 + 0.15 * closed), 0.9)
    dark = mix(p.shadow, (25, 16, 16), 0.75)
    if closed < 0.75:
        _paint_iris(p, [x + 0.02 * p.scene.yaw, middle_y - 0.012], upper_lid[::side], lower_lid[::side])
        p.stroke(upper_lid, dark, 2.0 + 0.5 * closed)
    else:
        p.fill(np.vstack([upper_lid - [0, 0.05], lower_lid[::-1]]), mix(p.skin, p.shadow, 0.15))
        p.stroke(lower_lid, dark, 2.0 + 0.5 * closed)
    p.stroke(lower_lid, p.crease(0.55 + 0.35 * tight), 0.9 + 0.5 * tight)
    for t in (2, 5, 8) if closed >= 0.75 else ():  # lashes
        p.stroke([lower_lid[t], lower_lid[t] + [side * 0.02 * (t - 4), 0.06]], dark, 1.0)
    if tight:  # lid tightener: a pouch under the lower lid
        p.stroke(lower_lid[2:-2] + [0, 0.07], p.crease(0.75 * tight), 1.2)
    if p.who.glasses:
        ring = np.asarray((x, y + 0.02)) + circle(24) * (0.315, 0.26)
        p.stroke(np.vstack([ring, ring[:1]]), (48, 44, 52), 1.2)
        p.stroke([(side * 0.085, y - 0.02), (0, y - 0.04)], (48, 44, 52), 1.2)
    return [inner, outer, (x, top), (x, bottom), (x, middle_y)]


def _paint_iris(p: Painter, centre: list[float], upper_lid: np.ndarray, lower_lid: np.ndarray) -> None:
    """White, iris, pupil and highlight, cut off by the lids, which run from left to right."""
    p.fill(np.vstack([upper_lid, lower_lid[::-1]]), (246, 244, 240))
    rim, colour = centre + circle() * 0.108, EYES[p.who.eyes]
    ceiling, floor = (np.interp(rim[:, 0], *lid.T) for lid in (upper_lid, lower_lid))
    for scale, fill in ((1.0, mix(colour, (0, 0, 0), 0.35)), (0.82, colour), (0.46, (18, 14, 16))):
        x, y = (centre + (rim - centre) * scale).T
        p.fill(np.stack([x, np.clip(y, ceiling, floor)], 1), fill)
    p.disc(centre + np.array([0.035, -0.035]), 0.022, 0.022, (255, 255, 255))
