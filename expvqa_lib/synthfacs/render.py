"""Drawing of SynthFACS faces in face units (see `face`), painted with PIL at twice the size and halved."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from .eyes import paint_brow, paint_eye
from .face import BACKGROUNDS, Face
from .mouth import paint_mouth
from .painter import Painter, closed_curve, curve, mirrored, mix

LANDMARKS = (
    *(
        f"{side} {part}"
        for side in ("left", "right")
        for part in ("inner eyebrow", "eyebrow middle", "outer eyebrow")
    ),
    *(f"left {part}" for part in ("inner eye corner", "outer eye corner", "upper lid", "lower lid", "iris")),
    *(f"right {part}" for part in ("inner eye corner", "outer eye corner", "upper lid", "lower lid", "iris")),
    *("nose tip", "left nose wing", "right nose wing"),
    *("left lip corner", "right lip corner"),
    *("upper lip top", "upper lip edge", "lower lip edge", "lower lip bottom"),
    *("left upper lip", "right upper lip", "left lower lip", "right lower lip"),
    *("chin", "left jaw", "right jaw", "left cheek", "right cheek"),
)
"""Names of the rows of `Rendering.landmarks`; left and right are the viewer's."""

_HAIRLINES = {  # its right end, middle points and left end; the ends inwards from the widest of the head
    "short": ((0.10, -0.55), [(0.45, -0.93), (0, -0.90), (-0.45, -0.93)], (0.10, -0.55)),
    "long": ((0.07, -0.30), [(0.52, -0.93), (0, -1.02), (-0.52, -0.93)], (0.07, -0.30)),
    "parted": ((0.06, -0.36), [(0.62, -0.72), (-0.28, -1.05), (-0.58, -0.78)], (0.10, -0.42)),
    "fringe": ((0.08, -0.45), [(0.58, -0.74), (0.1, -0.80), (-0.45, -0.76)], (0.08, -0.45)),
}


@dataclass(frozen=True)
class Rendering:
    """A drawn face: `image` uint8 [S, S, 3]; `landmarks` float32 [len(LANDMARKS), 2] in pixels, x then y."""

    image: np.ndarray
    landmarks: np.ndarray


def render(face: Face, size: int = 96) -> Rendering:
    """Draw a face [size, size, 3]; the same face and size always give the same pixels."""
    painter = Painter(face, 2 * size)
    landmarks = painter.pixels(_paint(painter))
    scene, axis = face.scene, np.linspace(-1, 1, size, dtype=np.float32)
    light = scene.exposure + np.stack(np.meshgrid(axis, axis), 2) @ np.array(
        [scene.light_x, scene.light_y], np.float32
    )
    pixels = np.asarray(painter.image.reduce(2), np.float32) * light[..., None]
    if scene.noise:
        noise = np.random.default_rng(scene.seed).standard_normal(pixels.shape, np.float32)
        pixels = pixels + noise * scene.noise
    return Rendering(np.clip(pixels, 0, 255).astype(np.uint8), (landmarks / 2).astype(np.float32))


def au_mask(face: Face, au: int, size: int = 96, threshold: float = 12.0) -> np.ndarray:
    """Return the pixels that an AU changed by more than `threshold` grey levels, bool [size, size]."""
    rest = replace(face, aus={other: value for other, value in face.aus.items() if other != au})
    with_it, without = (render(f, size).image.astype(np.int16) for f in (face, rest))
    return np.abs(with_it - without).max(2) > threshold


def close_gaps(mask: np.ndarray) -> np.ndarray:
    """Return a mask [H, W] with its gaps of up to 1/24 of the height closed.

    Where lids tighten, the pixels of both their edges change; the closed mask has the eye between them.
    """
    gap = 2 * round(len(mask) / 48) + 1
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(gap))
    return np.asarray(grown.filter(ImageFilter.MinFilter(gap))) > 0


def _paint(p: Painter) -> np.ndarray:
    """Paint everything; return the landmarks in face units."""
    a, who = p.strength, p.who
    jaw, wide = 0.13 * a(26) + 0.24 * a(27), 0.86 + 0.05 * who.face_width
    jaw_x, jaw_y = wide * (0.70 + 0.09 * who.jaw_width), 0.66 + jaw * 0.7
    chin_y = 0.98 + 0.05 * who.chin_length + jaw - 0.035 * a(17)
    p.disc((0.25, -0.3), 0.55, 0.9, mix(BACKGROUNDS[p.scene.background], (255, 255, 255), 0.12))
    if who.hairstyle == "long":
        side = [(0.55, 1.45), (wide + 0.22, 1.35), (wide + 0.24, 0.1), (wide + 0.12, -0.75), (0.4, -1.25)]
        p.fill(closed_curve(mirrored(side)), mix(p.hair, (0, 0, 0), 0.15))
    elif who.hairstyle != "bald":
        p.disc((0, -0.55), wide + 0.1, 0.72, mix(p.hair, (0, 0, 0), 0.1))
    p.fill([(-0.42, 0.6), (0.42, 0.6), (0.48, 1.4), (-0.48, 1.4)], mix(p.skin, (50, 20, 20), 0.28))
    p.fill(curve([(-1.6, 1.7), (-0.9, 1.02), (0, 1.28), (0.9, 1.02), (1.6, 1.7)], 15), p.scene.clothes)
    for side in (-1, 1) if who.hairstyle != "long" else ():
        p.disc((side * (wide + 0.02), -0.02), 0.10, 0.20, mix(p.skin, (90, 30, 25), 0.18))
    side = [(0.30, chin_y - 0.02), (jaw_x, jaw_y), (wide, 0.12), (wide * 0.97, -0.34), (wide * 0.72, -0.86)]
    head = closed_curve([(0, chin_y), *mirrored([*side, (0.26, -1.06)])], 5)
    p.fill(head, p.skin)
    p.stroke(np.vstack([head, head[:1]]), p.crease(0.45), 0.8)
    if who.beard:
        side = [(0.24, chin_y - 0.03), (jaw_x * 0.96, 0.64 + jaw * 0.7), (wide * 0.95, 0.22), (0.62, 0.42)]
        beard = [(0, chin_y), *side, (0.36, 0.40), (0.0, 0.38), (-0.36, 0.40), *mirrored(side)[4:]]
        p.fill(closed_curve(beard, 5), mix(p.skin, p.hair, 0.25 + 0.3 * who.beard))
    # folds of raised inner brows (middle) and outer brows (tails), furrows of lowered brows (between)
    rest = 0.22 * max(0.0, who.age - 0.35)
    for y, tail in ((-0.78, 0.10), (-0.68, 0.12)):
        middle = [(-0.26, y + 0.02), (0, y - 0.05), (0.26, y + 0.02)]
        outer = [(0.34, y + 0.02), (0.52, y - 0.06), (0.72, y + tail)]
        for au, side, points in ((1, 0, middle), (2, -1, outer), (2, 1, outer)):
            if (depth := 0.75 * a(au, side) + rest) > 0.05:
                p.fold(points, p.crease(depth), 1.1, side or 1)
    for side in (-1, 1) if a(4) else ():
        p.fold([(0.055, -0.20), (0.07, -0.32), (0.04, -0.44)], p.crease(0.9 * a(4)), 1.3, side)
    eyes = [paint_eye(p, side) for side in (-1, 1)]
    nose, mouth = _paint_nose(p), paint_mouth(p, jaw, chin_y)
    brows = [paint_brow(p, side) for side in (-1, 1)]
    if who.hairstyle != "bald":
        right, middle, left = _HAIRLINES[who.hairstyle]
        line = [(wide - right[0], right[1]), *middle, (-wide + left[0], left[1]), (0, -1.3)]
        cap = curve(mirrored([(wide + 0.06, -0.30), (wide + 0.08, -0.9), (0.4, -1.35)])[::-1], 13)
        p.fill(np.vstack([cap, closed_curve(line)[:16]]), mix(p.hair, (255, 255, 255), 0.06))
    rim = [(0, chin_y), (-jaw_x, jaw_y), (jaw_x, jaw_y)]
    rim += [(side * 0.52, 0.28 - 0.07 * a(6, side) - 0.04 * a(12, side)) for side in (-1, 1)]
    return np.vstack([*brows, *eyes, nose, mouth, rim])


def _paint_nose(p: Painter) -> list[tuple[float, float]]:
    wrinkle = p.strength(9)
    lift, w = 0.065 * wrinkle + 0.02 * p.strength(10), 0.155 + 0.025 * p.who.nose_width + 0.025 * wrinkle
    tip = 0.27 + 0.035 * p.who.nose_length - 0.4 * lift
    wing = tip - lift
    bridge = [(-0.035, -0.12), (0.035, -0.12), (0.055, tip - 0.08), (-0.055, tip - 0.08)]
    p.fill(bridge, mix(p.skin, p.light, 0.45))
    p.fold([(0.07, -0.14), (0.075, 0.05), (0.11, tip - 0.10)], p.crease(0.35), 1)
    p.fold([(-w * 0.55, tip + 0.01), (0, tip + 0.07), (w * 0.55, tip + 0.01)], p.crease(0.6), 1.2)
    outline = [(w * 0.75, wing - 0.11), (w + 0.05, wing - 0.02), (w * 0.8, wing + 0.04)]
    for side in (-1, 1):
        p.fold(outline, p.crease(0.7), 1.3, side)
        p.disc((side * w * 0.45, tip + 0.015), 0.036, 0.02, p.crease(0.95))
        if wrinkle:
            for y in (-0.13, -0.05, 0.03):  # slanted folds over the bridge
                p.stroke([(side * 0.035, y), (side * 0.13, y - 0.075)], p.crease(0.95 * wrinkle), 1.2)
            p.fold([(0.14, 0.10), (0.22, 0.02), (0.19, -0.06)], p.crease(0.7 * wrinkle), 1.1, side)
    return [(0.0, tip), (-w, wing), (w, wing)]
