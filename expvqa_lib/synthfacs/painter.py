"""A painter of shapes in face units: curves, colours, and what it knows of the face it paints."""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .face import BACKGROUNDS, HAIR, SKIN, Face

Colour = tuple[int, int, int]


class Painter:
    """Paints shapes given in face units (see `face`) on one square image of `size` pixels."""

    def __init__(self, face: Face, size: int) -> None:
        self.face, self.scene, self.who = face, face.scene, face.identity
        self.image = Image.new("RGB", (size, size), BACKGROUNDS[self.scene.background])
        self._draw = ImageDraw.Draw(self.image)
        angle = np.deg2rad(self.scene.roll)
        scale = 0.435 * size * self.scene.scale
        self._turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self._centre = size * np.array([0.5 + self.scene.shift_x, 0.5 + self.scene.shift_y])
        tone = self.who.skin * (len(SKIN) - 1)
        self.skin = mix(SKIN[int(tone)], SKIN[min(int(tone) + 1, len(SKIN) - 1)], tone % 1)
        self.shadow = mix(self.skin, (64, 24, 20), 0.62)
        self.light, self.hair = mix(self.skin, (255, 246, 236), 0.35), HAIR[self.who.hair]

    def strength(self, au: int, side: int = 0) -> float:
        """Intensity of an AU on one side (-1 left, 1 right, 0 the stronger)."""
        value = self.face.aus.get(au, 0.0)
        return value * min(1.0, 1.0 + side * self.face.lateral.get(au, 0.0)) if side else value

    def crease(self, depth: float) -> Colour:
        """Colour of a skin fold of this depth (0 none, 1 deep)."""
        return mix(self.skin, self.shadow, depth)

    def deep_crease(self, depth: float) -> Colour:
        """Colour of a fold that shows on skin and on a beard."""
        ground = mix(self.skin, self.hair, 0.5 if self.who.beard else 0)
        return mix(ground, mix(self.shadow, (20, 8, 8), 0.45), depth)

    def pixels(self, points) -> np.ndarray:
        """Face units [n, 2] to pixels: yaw and pitch slide near parts over far ones; roll, scale, shift."""
        points = np.asarray(points, float)
        depth = np.sqrt(np.clip(1.2 - 0.95 * points[:, :1] ** 2, 0.05, None))
        slide = depth * [0.24 * self.scene.yaw, 0.16 * self.scene.pitch]
        return (points + slide) @ self._turn + self._centre

    def fill(self, points, colour: Colour) -> None:
        self._draw.polygon(self.pixels(points).ravel().tolist(), fill=colour)

    def stroke(self, points, colour: Colour, width: float = 1.0) -> None:
        width = max(1, round(width * (self.image.width / 96)))
        self._draw.line(self.pixels(points).ravel().tolist(), fill=colour, width=width, joint="curve")

    def fold(self, points, colour: Colour, width: float, side: int = 1, origin=(0, 0)) -> None:
        """Stroke a curve over control points [k, 2], mirrored for the left side (-1), from `origin`."""
        self.stroke(curve([np.asarray(origin) + (side * x, y) for x, y in points]), colour, width)

    def disc(self, centre, rx: float, ry: float, colour: Colour) -> None:
        self.fill(np.asarray(centre) + circle() * (rx, ry), colour)


@cache
def circle(n: int = 20) -> np.ndarray:
    """Return n points [n, 2] of the unit circle."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], 1)


def curve(points, n: int = 9) -> np.ndarray:
    """Return a Bézier curve [n, 2] over control points [k, 2]."""
    return _bernstein(len(points), n) @ np.asarray(points, float)


def closed_curve(points, per: int = 4) -> np.ndarray:
    """Return a closed Catmull-Rom spline [k * per, 2] through points [k, 2]."""
    return _closed_basis(len(points), per) @ np.asarray(points, float)


def mirrored(points) -> list[tuple[float, float]]:
    """Return points of the right half of the face, then the left half's, in one way round."""
    return [*points, *[(-x, y) for x, y in reversed(points)]]


def mix(a, b, share: float) -> Colour:
    """Return the colour at `share` (0 to 1) of the way from a to b."""
    share = min(max(share, 0.0), 1.0)
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))


@cache
def _bernstein(order: int, n: int) -> np.ndarray:
    """Basis [n, order] of a Bézier curve with `order` control points."""
    t, k = np.linspace(0, 1, n)[:, None], np.arange(order)
    choose = np.array([math.comb(order - 1, i) for i in range(order)])
    return choose * t**k * (1 - t) ** (order - 1 - k)


@cache
def _closed_basis(k: int, per: int) -> np.ndarray:
    """Basis [k * per, k] of a closed Catmull-Rom spline through k points."""
    t = np.linspace(0, 1, per, endpoint=False)
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    return sum(
        np.kron(np.roll(np.eye(k), j - 1, axis=1), weight[:, None] / 2) for j, weight in enumerate(weights)
    )
