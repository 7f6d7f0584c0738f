"""Drawing of SynthFACS faces: geometry in face units (see `faces`), painted with PIL at twice the size and halved."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .face import _SKIN, BACKGROUNDS, EYES, HAIR, Face, Rendering, _closed, _curve, _mix
from .mouth import paint_mouth

LANDMARKS = (
    *(
        f"{side} {part}"
        for side in ("left", "right")
        for part in ("inner eyebrow", "eyebrow middle", "outer eyebrow")
    ),
    *(
        f"{side} {part}"
        for side in ("left", "right")
        for part in ("inner eye corner", "outer eye corner", "upper lid", "lower lid", "iris")
    ),
    *("nose tip", "left nose wing", "right nose wing"),
    *(
        "left lip corner",
        "right lip corner",
        "upper lip top",
        "upper lip edge",
        "lower lip edge",
        "lower lip bottom",
    ),
    *("left upper lip", "right upper lip", "left lower lip", "right lower lip"),
    *("chin", "left jaw", "right jaw", "left cheek", "right cheek"),
)
"""Names of the rows of `Rendering.landmarks`; left and right are the viewer's."""


class _Painter:
    """Paints shapes given in face units on one image of `size` pixels."""

    def __init__(self, face: Face, size: int) -> None:
        scene = face.scene
        self.size, self.width = size, size / 96  # width: one line unit, 1 px of a 96 px image
        self.image = Image.new("RGB", (size, size), BACKGROUNDS[scene.background])
        self.draw = ImageDraw.Draw(self.image)
        angle = np.deg2rad(scene.roll)
        scale = 0.435 * size * scene.scale
        self._turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self._centre = size * np.array([0.5 + scene.shift_x, 0.5 + scene.shift_y])
        self._yaw, self._pitch = scene.yaw, scene.pitch

    def pixels(self, points) -> np.ndarray:
        """Face units [n, 2] to pixels: yaw and pitch slide near parts over far ones, then roll, scale and shift."""
        points = np.asarray(points, float)
        depth = np.sqrt(np.clip(1.2 - 0.95 * points[:, 0] ** 2, 0.05, None))
        slid = points + np.stack([0.24 * self._yaw * depth, 0.16 * self._pitch * depth], 1)
        return slid @ self._turn + self._centre

    def fill(self, points, colour) -> None:
        self.draw.polygon(self.pixels(points).ravel().tolist(), fill=colour)

    def stroke(self, points, colour, width: float = 1.0) -> None:
        self.draw.line(
            self.pixels(points).ravel().tolist(),
            fill=colour,
            width=max(1, round(width * self.width)),
            joint="curve",
        )

    def disc(self, centre, rx: float, ry: float, colour) -> None:
        self.fill(np.asarray(centre) + _circle() * (rx, ry), colour)


@cache
def _circle(n: int = 20) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], 1)


@cache
def _plane(size: int) -> np.ndarray:
    """Coordinates [size, size, 2] from -1 to 1, x then y."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), 2)


def render(face: Face, size: int = 96) -> Rendering:
    """Draw a face.

    Args:
        face: what to draw.
        size: side of the square image in pixels.

    Returns:
        The image and its landmarks. The same face and size always give the same pixels.
    """
    painter = _Painter(face, 2 * size)
    landmarks = _paint(painter, face)
    pixels = np.asarray(painter.image.reduce(2), np.float32)
    scene = face.scene
    if scene.light_x or scene.light_y or scene.exposure != 1:
        pixels = (
            pixels
            * (scene.exposure + _plane(size) @ np.array([scene.light_x, scene.light_y], np.float32))[
                ..., None
            ]
        )
    if scene.noise:
        pixels = (
            pixels + np.random.default_rng(scene.seed).standard_normal(pixels.shape, np.float32) * scene.noise
        )
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    return Rendering(image, (landmarks / 2).astype(np.float32))


def au_mask(face: Face, au: int, size: int = 96, threshold: float = 12.0) -> np.ndarray:
    """Return the pixels that an AU changed, bool [size, size]: where the face without it differs by more than `threshold` grey levels."""
    with_it, without = (render(f, size).image.astype(np.int16) for f in (face, face.without(au)))
    return np.abs(with_it - without).max(2) > threshold


def closed(mask: np.ndarray) -> np.ndarray:
    """Return the region that a mask [H, W] of changed pixels encloses: it and the gaps in it up to 1/24 of the height wide.

    Where lids tighten, both their edges change; the region has the eye between them, too.
    """
    gap = 2 * round(len(mask) / 48) + 1
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(gap))
    return np.asarray(grown.filter(ImageFilter.MinFilter(gap))) > 0


def _paint(p: _Painter, face: Face) -> np.ndarray:
    """Paint everything; return the landmarks in pixels of the painter's image."""
    who = face.identity

    def a(au: int, side: int = 0) -> float:
        """Intensity of an AU on one side (-1 left, 1 right, 0 the stronger)."""
        value = face.aus.get(au, 0.0)
        lateral = face.lateral.get(au, 0.0)
        return value if side == 0 or not value else value * min(1.0, 1.0 + side * lateral)

    tone = who.skin * (len(_SKIN) - 1)
    skin = _mix(_SKIN[int(tone)], _SKIN[min(int(tone) + 1, len(_SKIN) - 1)], tone % 1)
    shadow = _mix(skin, (64, 24, 20), 0.62)
    light = _mix(skin, (255, 246, 236), 0.35)
    hair = HAIR[who.hair]

    def line(strength: float):
        """Skin colour of a fold of this depth (0 none, 1 deep)."""
        return _mix(skin, shadow, strength)

    jaw = 0.13 * a(26) + 0.24 * a(27)
    wide = 0.86 + 0.05 * who.face_width
    jaw_x = wide * (0.70 + 0.09 * who.jaw_width)
    chin_y = 0.98 + 0.05 * who.chin_length + jaw - 0.035 * a(17)
    right_half = [
        (0.30, chin_y - 0.02),
        (jaw_x, 0.66 + jaw * 0.7),
        (wide, 0.12),
        (wide * 0.97, -0.34),
        (wide * 0.72, -0.86),
        (0.26, -1.06),
    ]
    outline = [(0, chin_y), *right_half, *[(-x, y) for x, y in reversed(right_half)]]

    _behind(p, face, wide, skin, hair)
    head = _closed(outline, 5)
    p.fill(head, skin)
    p.stroke(np.vstack([head, head[:1]]), line(0.45), 0.8)
    if who.beard:
        inner = [
            (0.24, chin_y - 0.03),
            (jaw_x * 0.96, 0.64 + jaw * 0.7),
            (wide * 0.95, 0.22),
            (0.62, 0.42),
            (0.36, 0.40),
            (0.0, 0.38),
        ]
        p.fill(
            _closed([(0, chin_y), *inner, *[(-x, y) for x, y in reversed(inner[:-1])]], 5),
            _mix(skin, hair, 0.25 + 0.3 * who.beard),
        )
    _forehead(p, a, line, who)
    eyes = [_eye(p, face, a, side, skin, shadow, light, line) for side in (-1, 1)]
    nose = _nose(p, a, who, line, light)
    mouth = paint_mouth(p, face, a, jaw, chin_y, skin, shadow, light, line)
    brows = [_brow(p, face, a, side, hair, skin) for side in (-1, 1)]
    _hair_front(p, who, wide, hair)
    cheeks = [(side * 0.52, 0.28 - 0.07 * a(6, side) - 0.04 * a(12, side)) for side in (-1, 1)]
    jaws = [(side * jaw_x, 0.66 + jaw * 0.7) for side in (-1, 1)]
    return p.pixels(np.vstack([*brows, *eyes, nose, mouth, [(0, chin_y)], jaws, cheeks]))


def _behind(p: _Painter, face: Face, wide: float, skin, hair) -> None:
    who = face.identity
    p.disc((0.25, -0.3), 0.55, 0.9, _mix(BACKGROUNDS[face.scene.background], (255, 255, 255), 0.12))
    if who.hairstyle == "long":
        side = [(0.55, 1.45), (wide + 0.22, 1.35), (wide + 0.24, 0.1), (wide + 0.12, -0.75), (0.4, -1.25)]
        p.fill(_closed([*side, *[(-x, y) for x, y in reversed(side)]]), _mix(hair, (0, 0, 0), 0.15))
    elif who.hairstyle != "bald":
        p.disc((0, -0.55), wide + 0.1, 0.72, _mix(hair, (0, 0, 0), 0.1))
    p.fill([(-0.42, 0.6), (0.42, 0.6), (0.48, 1.4), (-0.48, 1.4)], _mix(skin, (50, 20, 20), 0.28))
    p.fill(_curve([(-1.6, 1.7), (-0.9, 1.02), (0, 1.28), (0.9, 1.02), (1.6, 1.7)], 15), face.scene.clothes)
    if who.hairstyle != "long":
        for side in (-1, 1):
            p.disc((side * (wide + 0.02), -0.02), 0.10, 0.20, _mix(skin, (90, 30, 25), 0.18))


def _forehead(p: _Painter, a, line, who) -> None:
    rest = 0.22 * max(0.0, who.age - 0.35)
    for k, y in enumerate((-0.78, -0.68)):
        if (depth := 0.75 * a(1) + rest) > 0.05:  # inner brow raiser: folds at the middle
            p.stroke(_curve([(-0.26, y + 0.02), (0, y - 0.05), (0.26, y + 0.02)]), line(depth), 1.1)
        for side in (-1, 1):
            if (depth := 0.75 * a(2, side) + rest) > 0.05:  # outer brow raiser: arcs over the tails
                p.stroke(
                    _curve(
                        [(side * 0.34, y + 0.02), (side * 0.52, y - 0.06), (side * 0.72, y + 0.10 + 0.02 * k)]
                    ),
                    line(depth),
                    1.1,
                )
    for side in (-1, 1):
        if depth := 0.9 * a(4):  # brow lowerer: upright furrows between the brows
            p.stroke(
                _curve([(side * 0.055, -0.20), (side * 0.07, -0.32), (side * 0.04, -0.44)]), line(depth), 1.3
            )


def _brow(p: _Painter, face: Face, a, side: int, hair, skin) -> list[tuple[float, float]]:
    who = face.identity
    up1, up2, down = a(1, side), a(2, side), a(4, side)
    base = -0.40 - 0.04 * who.brow_height
    pull = 0.06 * down
    inner = (0.17 - pull, base + 0.02 - 0.16 * up1 - 0.02 * up2 + 0.15 * down + 0.05 * a(9, side))
    middle = (0.42 - pull, base - 0.09 - 0.03 * who.brow_arch - 0.06 * up1 - 0.12 * up2 + 0.13 * down)
    outer = (0.70 - 0.4 * pull, base + 0.02 - 0.15 * up2 + 0.05 * down)
    width = 3.4 + 1.1 * who.brow_thickness
    colour = _mix(_mix(hair, (30, 22, 20), 0.25), skin, 0.08)
    points = [(side * x, y) for x, y in (inner, middle, outer)]
    control = (
        2 * np.asarray(points[1]) - 0.5 * (np.asarray(points[0]) + points[2])
    ).tolist()  # so that the curve meets the middle
    curve = _curve([points[0], control, points[2]], 11)
    half = width / 96 / 0.9 * np.linspace(1.0, 0.25, 11)[:, None] * [[0, 1]]
    p.fill(np.vstack([curve - half, (curve + half)[::-1]]), colour)
    return points


def _eye(p: _Painter, face: Face, a, side: int, skin, shadow, light, line) -> list[tuple[float, float]]:
    who = face.identity
    wide, tight, cheek, closed = a(5, side), a(7, side), a(6, side), a(43, side)
    x0, y0 = side * (0.40 + 0.035 * who.eye_spacing), -0.13
    w = 0.215 + 0.02 * who.eye_size
    tilt = 0.025 * who.eye_tilt
    rest = 1 + 0.12 * who.eye_size
    upper = (0.125 * rest + 0.095 * wide - 0.055 * tight) * (1 - closed) - 0.055 * closed
    lower = (0.080 * rest - 0.062 * tight - 0.022 * cheek) * (1 - closed) + 0.055 * closed
    inner, outer = (x0 - side * w, y0 + 0.01), (x0 + side * w, y0 - 0.015 - tilt)
    mid_x, mid_y = x0, y0 - 0.3 * tilt
    top, bottom = mid_y - upper, mid_y + lower
    upper_lid = _curve(
        [inner, (x0 - side * 0.6 * w, top - 0.55 * upper), (x0 + side * 0.55 * w, top - 0.55 * upper), outer],
        11,
    )
    lower_lid = _curve(
        [
            inner,
            (x0 - side * 0.5 * w, bottom + 0.45 * lower),
            (x0 + side * 0.6 * w, bottom + 0.45 * lower),
            outer,
        ],
        11,
    )
    dark = _mix(shadow, (25, 16, 16), 0.75)
    if cheek:  # cheek raiser: a bulge under the eye and crow's feet
        bulge = _curve(
            [(x0 - side * 0.20, y0 + 0.20), (x0, y0 + 0.30 - 0.06 * cheek), (x0 + side * 0.27, y0 + 0.13)], 9
        )
        p.fill(
            np.vstack(
                [
                    bulge,
                    _curve([(x0 + side * 0.30, y0 + 0.20), (x0, y0 + 0.46), (x0 - side * 0.2, y0 + 0.26)]),
                ]
            ),
            light,
        )
        p.stroke(bulge, line(0.95 * cheek), 1.5)
        for dy in (-0.07, 0.0, 0.07):
            start, end = (x0 + side * (w + 0.05), y0 + 0.6 * dy), (x0 + side * (w + 0.19), y0 + 1.7 * dy)
            p.stroke([start, end], line(0.95 * cheek), 1.1)
    elif who.age > 0.4:
        p.stroke(
            _curve([(x0 - side * 0.17, y0 + 0.18), (x0, y0 + 0.24), (x0 + side * 0.16, y0 + 0.16)]),
            line(0.5 * (who.age - 0.3)),
            1,
        )
    crease = upper_lid - [0, 0.055 - 0.03 * wide + 0.02 * closed]
    p.stroke(crease[1:-1], line(0.45 + 0.15 * closed), 0.9)
    if closed < 0.75:
        shape = np.vstack([upper_lid, lower_lid[::-1]])
        p.fill(shape, (246, 244, 240))
        iris = (mid_x + 0.02 * face.scene.yaw, mid_y - 0.012)
        _clipped_iris(p, iris, shape, EYES[who.eyes], upper_lid, lower_lid)
    else:
        p.fill(np.vstack([upper_lid - [0, 0.05], lower_lid[::-1]]), _mix(skin, shadow, 0.15))
    p.stroke(upper_lid if closed < 0.75 else lower_lid, dark, 2.0 + 0.5 * closed)
    p.stroke(lower_lid, line(0.55 + 0.35 * tight), 0.9 + 0.5 * tight)
    if closed >= 0.75:
        for t in (2, 5, 8):
            x, y = lower_lid[t]
            p.stroke([(x, y), (x + side * 0.02 * (t - 4), y + 0.06)], dark, 1.0)
    if tight:  # lid tightener: a pouch under the lower lid
        p.stroke(lower_lid[2:-2] + [0, 0.07], line(0.75 * tight), 1.2)
    if who.glasses:
        ring = np.asarray((x0, y0 + 0.02)) + _circle(24) * (0.315, 0.26)
        p.stroke(np.vstack([ring, ring[:1]]), (48, 44, 52), 1.2)
        p.stroke([(side * 0.085, y0 - 0.02), (0, y0 - 0.04)], (48, 44, 52), 1.2)
    return [inner, outer, (mid_x, float(top)), (mid_x, float(bottom)), (mid_x, mid_y)]


def _clipped_iris(p: _Painter, centre, shape, colour, upper_lid, lower_lid) -> None:
    """Iris, pupil and highlight, cut off by the lids."""
    circle = np.asarray(centre) + _circle(20) * 0.108
    ceiling = np.interp(circle[:, 0], *_ordered(upper_lid))
    floor = np.interp(circle[:, 0], *_ordered(lower_lid))
    for scale, fill in ((1.0, _mix(colour, (0, 0, 0), 0.35)), (0.82, colour), (0.46, (18, 14, 16))):
        ring = np.asarray(centre) + (circle - centre) * scale
        ring[:, 1] = np.clip(ring[:, 1], ceiling, floor)
        p.fill(ring, fill)
    p.disc((centre[0] + 0.035, centre[1] - 0.035), 0.022, 0.022, (255, 255, 255))


def _ordered(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = slice(None) if curve[0, 0] < curve[-1, 0] else slice(None, None, -1)
    return curve[order, 0], curve[order, 1]


def _nose(p: _Painter, a, who, line, light) -> list[tuple[float, float]]:
    lift = 0.065 * a(9) + 0.02 * a(10)
    w = 0.155 + 0.025 * who.nose_width + 0.025 * a(9)
    tip = 0.27 + 0.035 * who.nose_length - 0.4 * lift
    wing = tip - lift
    p.fill(
        [(-0.035, -0.12), (0.035, -0.12), (0.055, tip - 0.08), (-0.055, tip - 0.08)],
        _mix(line(0), light, 0.45),
    )
    p.stroke(_curve([(0.07, -0.14), (0.075, 0.05), (0.11, tip - 0.10)]), line(0.35), 1)
    p.stroke(_curve([(-w * 0.55, tip + 0.01), (0, tip + 0.07), (w * 0.55, tip + 0.01)]), line(0.6), 1.2)
    for side in (-1, 1):
        p.stroke(
            _curve(
                [
                    (side * w * 0.75, wing - 0.11),
                    (side * (w + 0.05), wing - 0.02),
                    (side * w * 0.8, wing + 0.04),
                ]
            ),
            line(0.7),
            1.3,
        )
        p.disc((side * w * 0.45, tip + 0.015), 0.036, 0.02, line(0.95))
        if wrinkle := a(9):  # nose wrinkler: slanted folds over the bridge
            for y in (-0.13, -0.05, 0.03):
                p.stroke([(side * 0.035, y), (side * 0.13, y - 0.075)], line(0.95 * wrinkle), 1.2)
            p.stroke(
                _curve([(side * 0.14, 0.10), (side * 0.22, 0.02), (side * 0.19, -0.06)]),
                line(0.7 * wrinkle),
                1.1,
            )
    return [(0.0, tip), (-w, wing), (w, wing)]


def _hair_front(p: _Painter, who, wide: float, hair) -> None:
    shade = _mix(hair, (255, 255, 255), 0.06)
    if who.hairstyle == "bald":
        return
    cap = [
        (-wide - 0.06, -0.30),
        (-wide - 0.08, -0.9),
        (-0.4, -1.35),
        (0.4, -1.35),
        (wide + 0.08, -0.9),
        (wide + 0.06, -0.30),
    ]
    hairline = {
        "short": [(wide - 0.10, -0.55), (0.45, -0.93), (0, -0.90), (-0.45, -0.93), (-wide + 0.10, -0.55)],
        "long": [(wide - 0.07, -0.30), (0.52, -0.93), (0, -1.02), (-0.52, -0.93), (-wide + 0.07, -0.30)],
        "parted": [
            (wide - 0.06, -0.36),
            (0.62, -0.72),
            (-0.28, -1.05),
            (-0.58, -0.78),
            (-wide + 0.10, -0.42),
        ],
        "fringe": [(wide - 0.08, -0.45), (0.58, -0.74), (0.1, -0.80), (-0.45, -0.76), (-wide + 0.08, -0.45)],
    }[who.hairstyle]
    p.fill(np.vstack([_curve(cap, 13), _closed([*hairline, (0, -1.3)], 4)[:16]]), shade)
