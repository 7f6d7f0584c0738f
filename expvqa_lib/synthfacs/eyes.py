"""Drawing of eyes, lids and brows in face units (see `face`); `side` is -1 left, 1 right."""

import numpy as np

from .face import EYES
from .painter import Painter, circle, curve, mix

Points = list[tuple[float, float]]


def paint_brow(p: Painter, side: int) -> Points:
    """Paint a brow; return its landmarks: inner end, middle, outer end."""
    up1, up2, down = (p.strength(au, side) for au in (1, 2, 4))
    base, pull = -0.40 - 0.04 * p.who.brow_height, 0.06 * down
    inner_y = base + 0.02 - 0.16 * up1 - 0.02 * up2 + 0.15 * down + 0.05 * p.strength(9, side)
    middle_y = base - 0.09 - 0.03 * p.who.brow_arch - 0.06 * up1 - 0.12 * up2 + 0.13 * down
    outer = (side * (0.70 - 0.4 * pull), base + 0.02 - 0.15 * up2 + 0.05 * down)
    points = [(side * (0.17 - pull), inner_y), (side * (0.42 - pull), middle_y), outer]
    first, middle, last = np.asarray(points)
    line = curve([first, 2 * middle - 0.5 * (first + last), last], 11)  # through the middle
    half = (3.4 + 1.1 * p.who.brow_thickness) / 96 / 0.9 * np.linspace(1.0, 0.25, 11)[:, None] * [[0, 1]]
    p.fill(np.vstack([line - half, (line + half)[::-1]]), mix(mix(p.hair, (30, 22, 20), 0.25), p.skin, 0.08))
    return points


class _Eye:
    """Place and lids of one eye, and how the AUs around it act."""

    def __init__(self, p: Painter, side: int) -> None:
        who, self.side = p.who, side
        self.wide, self.tight, self.cheek, self.closed = (p.strength(au, side) for au in (5, 7, 6, 43))
        self.x, self.y = side * (0.40 + 0.035 * who.eye_spacing), -0.13
        self.w, tilt, rest = 0.215 + 0.02 * who.eye_size, 0.025 * who.eye_tilt, 1 + 0.12 * who.eye_size
        open_share, drop = 1 - self.closed, 0.055 * self.closed
        upper = (0.125 * rest + 0.095 * self.wide - 0.055 * self.tight) * open_share - drop
        lower = (0.080 * rest - 0.062 * self.tight - 0.022 * self.cheek) * open_share + drop
        self.middle_y = self.y - 0.3 * tilt
        self.top, self.bottom = self.middle_y - upper, self.middle_y + lower
        self.inner = (self.x - side * self.w, self.y + 0.01)
        self.outer = (self.x + side * self.w, self.y - 0.015 - tilt)
        self.upper_lid = self._lid(0.6, 0.55, self.top - 0.55 * upper)
        self.lower_lid = self._lid(0.5, 0.6, self.bottom + 0.45 * lower)
        self.is_open = self.closed < 0.75

    def _lid(self, inwards: float, outwards: float, y: float) -> np.ndarray:
        """The edge [11, 2] of a lid from the inner corner to the outer one."""
        near, far = self.x - self.side * inwards * self.w, self.x + self.side * outwards * self.w
        return curve([self.inner, (near, y), (far, y), self.outer], 11)


def paint_eye(p: Painter, side: int) -> Points:
    """Paint an eye; return its landmarks: inner and outer corner, upper and lower lid, iris."""
    eye = _Eye(p, side)
    _paint_cheek(p, eye)
    fold = eye.upper_lid - [0, 0.055 - 0.03 * eye.wide + 0.02 * eye.closed]
    p.stroke(fold[1:-1], p.crease(0.45 + 0.15 * eye.closed), 0.9)
    if eye.is_open:
        _paint_iris(p, eye)
    else:
        p.fill(np.vstack([eye.upper_lid - [0, 0.05], eye.lower_lid[::-1]]), mix(p.skin, p.shadow, 0.15))
    _paint_lids(p, eye)
    if p.who.glasses:
        ring = np.asarray((eye.x, eye.y + 0.02)) + circle(24) * (0.315, 0.26)
        p.stroke(np.vstack([ring, ring[:1]]), (48, 44, 52), 1.2)
        p.stroke([(side * 0.085, eye.y - 0.02), (0, eye.y - 0.04)], (48, 44, 52), 1.2)
    return [eye.inner, eye.outer, (eye.x, eye.top), (eye.x, eye.bottom), (eye.x, eye.middle_y)]


def _paint_cheek(p: Painter, eye: _Eye) -> None:
    """A bulge under the eye and crow's feet of the cheek raiser; else the bag of age."""
    (x, y), side, cheek = (eye.x, eye.y), eye.side, eye.cheek
    if cheek:
        bulge = curve(
            [(x - side * 0.20, y + 0.20), (x, y + 0.30 - 0.06 * cheek), (x + side * 0.27, y + 0.13)], 9
        )
        below = curve([(x + side * 0.30, y + 0.20), (x, y + 0.46), (x - side * 0.2, y + 0.26)])
        p.fill(np.vstack([bulge, below]), p.light)
        p.stroke(bulge, p.crease(0.95 * cheek), 1.5)
        for dy in (-0.07, 0.0, 0.07):
            start, end = (x + side * (eye.w + 0.05), y + 0.6 * dy), (x + side * (eye.w + 0.19), y + 1.7 * dy)
            p.stroke([start, end], p.crease(0.95 * cheek), 1.1)
    elif p.who.age > 0.4:
        depth = p.crease(0.5 * (p.who.age - 0.3))
        p.fold([(-0.17, 0.18), (0, 0.24), (0.16, 0.16)], depth, 1, side, (x, y))


def _paint_iris(p: Painter, eye: _Eye) -> None:
    """White, iris, pupil and highlight, cut off by the lids."""
    p.fill(np.vstack([eye.upper_lid, eye.lower_lid[::-1]]), (246, 244, 240))
    centre = np.array([eye.x + 0.02 * p.scene.yaw, eye.middle_y - 0.012])
    rim = centre + circle(20) * 0.108
    ceiling, floor = (np.interp(rim[:, 0], *_by_x(lid)) for lid in (eye.upper_lid, eye.lower_lid))
    colour = EYES[p.who.eyes]
    for scale, fill in ((1.0, mix(colour, (0, 0, 0), 0.35)), (0.82, colour), (0.46, (18, 14, 16))):
        x, y = (centre + (rim - centre) * scale).T
        p.fill(np.stack([x, np.clip(y, ceiling, floor)], 1), fill)
    p.disc(centre + [0.035, -0.035], 0.022, 0.022, (255, 255, 255))


def _by_x(line: np.ndarray) -> np.ndarray:
    return (line if line[0, 0] < line[-1, 0] else line[::-1]).T


def _paint_lids(p: Painter, eye: _Eye) -> None:
    dark = mix(p.shadow, (25, 16, 16), 0.75)
    p.stroke(eye.upper_lid if eye.is_open else eye.lower_lid, dark, 2.0 + 0.5 * eye.closed)
    p.stroke(eye.lower_lid, p.crease(0.55 + 0.35 * eye.tight), 0.9 + 0.5 * eye.tight)
    if not eye.is_open:
        for t in (2, 5, 8):
            lash = eye.lower_lid[t] + [eye.side * 0.02 * (t - 4), 0.06]
            p.stroke([eye.lower_lid[t], lash], dark, 1.0)
    if eye.tight:  # lid tightener: a pouch under the lower lid
        p.stroke(eye.lower_lid[2:-2] + [0, 0.07], p.crease(0.75 * eye.tight), 1.2)
