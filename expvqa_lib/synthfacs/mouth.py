"""Drawing of the mouth, where most action units act, in face units (see `face`)."""

import numpy as np

from .painter import Painter, curve, mix

_CORNER_MARKS = (  # AU, curve from the corner outwards, depth at its onset and gained, width, also on a beard
    (14, [(0.06, -0.15), (0.20, 0.0), (0.06, 0.15)], 0.4, 0.6, 2.8, True),  # dimpler: a tuck
    (20, [(0.06, -0.07), (0.06 + 0.03, 0), (0.06, 0.09)], 0.0, 0.65, 1.0, False),  # lip stretcher: upright
    (20, [(0.13, -0.07), (0.13 + 0.03, 0), (0.13, 0.09)], 0.0, 0.65, 1.0, False),
    (15, [(0.03, 0.01), (0.08, 0.07), (0.03, 0.13)], 0.3, 0.7, 1.8, True),  # lip corner depressor: a pouch
)
_LIP_MARKS = (  # AU, height to measure from, lines of points (share between the corners, y), then as above
    (23, "top", [[(t, -0.03), (t, -0.14)] for t in (0.1, 0.37, 0.63, 0.9)], 0.3, 0.6, 1.4, True),
    (23, "bottom", [[(t, 0.03), (t, 0.13)] for t in (0.1, 0.37, 0.63, 0.9)], 0.3, 0.6, 1.4, True),
    (24, "top", [[(0.08, -0.025), (0.5, -0.095), (0.92, -0.025)]], 0.3, 0.65, 2.2, True),  # bulges
    (24, "bottom", [[(0.08, 0.025), (0.5, 0.095), (0.92, 0.025)]], 0.3, 0.65, 2.2, True),
    (18, "top", [[(0, -0.02), (-0.25, -0.10)], [(0.25, -0.02), (0.125, -0.10)]], 0, 0.7, 1.0, False),
    (18, "top", [[(0.75, -0.02), (0.875, -0.10)], [(1, -0.02), (1.25, -0.10)]], 0, 0.7, 1.0, False),
    (28, "y", [[(0.05, -0.05), (0.5, -0.10), (0.95, -0.05)]], 0, 0.6, 1.3, False),  # skin folds over the line
    (28, "y", [[(0.05, 0.06), (0.5, 0.12), (0.95, 0.06)]], 0, 0.6, 1.3, False),
)


def paint_mouth(p: Painter, jaw: float, chin_y: float) -> list[tuple[float, float]]:
    """Paint the mouth and the folds around it; return its landmarks. `jaw` is how far the jaw is dropped."""
    mouth = _Mouth(p, jaw)
    for side, corner in ((-1, mouth.left), (1, mouth.right)):
        _paint_folds(p, mouth, side, corner)
    if chin := p.strength(17):  # chin raiser: the boss is pushed up and puckers
        boss = [(-0.20, chin_y - 0.13), (0, chin_y - 0.27), (0.20, chin_y - 0.13)]
        p.fold(boss, p.deep_crease(0.3 + 0.7 * chin), 1.8)
        for x, y in ((-0.09, -0.14), (0.09, -0.14), (0, -0.17), (-0.045, -0.09), (0.045, -0.09)):
            p.disc((x, chin_y + y), 0.018, 0.018, p.deep_crease(0.3 + 0.6 * chin))
    elif not p.who.beard:
        p.fold([(-0.10, 0.07), (0, 0.10), (0.10, 0.07)], p.crease(0.3), 1, origin=(0, mouth.bottom))
    if p.who.beard > 0.6:
        middle = (0, mouth.y - 0.20 - mouth.gap_up - 0.06 * p.strength(10))
        p.fold([mouth.left - [0.02, 0.02], middle, mouth.right + [0.02, -0.02]], p.hair, 3)
    _paint_lips(p, mouth)
    for au, height, lines, onset, gain, width, on_beard in _LIP_MARKS:
        colour = (p.deep_crease if on_beard else p.crease)(onset + gain * p.strength(au))
        for points in lines if p.strength(au) else ():
            line = [mouth.across(t, getattr(mouth, height) + y) for t, y in points]
            (p.fold if len(line) == 3 else p.stroke)(line, colour, width)
    middle = [mouth.across(0.5, y) for y in (mouth.top, mouth.edge_up, mouth.edge_low, mouth.bottom)]
    quarters = [*mouth.upper_top[[4, 9]], *mouth.lower_bottom[[2, 8]]]
    return [tuple(point) for point in (mouth.left, mouth.right, *middle, *quarters)]


class _Mouth:
    """Corners [2], heights of the lips' edges, and their lines from the left corner to the right one."""

    def __init__(self, p: Painter, jaw: float) -> None:
        a, who = p.strength, p.who
        full = ((1 + 0.3 * who.lip_fullness) * (1 + 0.35 * a(18)) * (1 + 0.5 * a(22))) * (
            (1 - 0.58 * a(23)) * (1 - 0.66 * a(24)) * (1 - 0.85 * a(28))
        )
        self.thick_low = 0.088 * full * (1 + 0.15 * a(17))
        up, low = 0.065 * a(10) * (1 - a(24)), 0.075 * a(16) * (1 - a(24))
        self.gap_up = 0.032 * a(25) + 0.02 * a(26) + 0.04 * a(27) + 0.055 * a(22) + up
        gap_low = 0.050 * a(25) + 0.045 * a(26) + 0.21 * a(27) + 0.055 * a(22) + low + 0.05 * a(19)
        self.gap_low = gap_low + (0.08 * a(26) if a(25) else 0.0)
        self.y = 0.57 + 0.025 * who.mouth_height + 0.25 * jaw - 0.045 * a(17)
        arch = -0.05 * a(17)  # the chin raiser bends the lips' line upwards
        self.edge_up, self.edge_low = self.y - self.gap_up + arch, self.y + self.gap_low + arch
        self.top, self.bottom = self.edge_up - 0.060 * full - 0.06 * a(10), self.edge_low + self.thick_low
        self.left, self.right = (self._corner(p, side) for side in (-1, 1))
        self.inner_up, self.inner_low = (
            self._line((0.25, edge + bend), (0.5, edge), (0.75, edge + bend))
            for edge, bend in ((self.edge_up, -0.3 * self.gap_up), (self.edge_low, 0.4 * self.gap_low))
        )
        self.upper_top = np.vstack([self._bow(self.left, 0.2, 0.36), self._bow(self.right, 0.8, 0.64)[::-1]])
        low = self.bottom + 0.5 * self.thick_low
        self.lower_bottom = self._line((0.2, low), (0.8, low))

    def _corner(self, p: Painter, side: int) -> np.ndarray:
        smile, frown, wide, dimple = (p.strength(au, side) for au in (12, 15, 20, 14))
        width = 0.34 + 0.03 * p.who.mouth_width
        for au, narrower in ((18, 0.48), (22, 0.30), (23, 0.40), (27, 0.12)):
            width *= 1 - narrower * p.strength(au)
        dx = 0.12 * smile + 0.15 * wide - 0.02 * frown + 0.05 * dimple
        dy = -0.17 * smile + 0.17 * frown + 0.03 * wide + 0.03 * p.strength(17) - 0.02 * dimple
        return np.array([side * (width + dx), self.y + dy])

    def _bow(self, corner: np.ndarray, slope: float, peak: float) -> np.ndarray:
        """Half of Cupid's bow [7, 2], from a corner to the dip in the middle."""
        y, across = self.top - 0.012, self.across
        return curve(
            [corner, across(slope, (corner[1] + y) / 2), across(peak, y), across(0.5, self.top + 0.012)], 7
        )

    def _line(self, *between: tuple[float, float]) -> np.ndarray:
        """A curve [11, 2] from corner to corner over points `between` (see `across`)."""
        return curve([self.left, *(self.across(t, y) for t, y in between), self.right], 11)

    def across(self, t: float, y: float) -> tuple[float, float]:
        """The point at share t of the way from the left to the right corner, at height y."""
        return (self.left[0] + t * (self.right[0] - self.left[0]), y)


def _paint_folds(p: Painter, mouth: _Mouth, side: int, corner: np.ndarray) -> None:
    """Nasolabial fold, and the marks beside one corner."""
    smile, dimple, deepen, lift = *(p.strength(au, side) for au in (12, 14, 11)), p.strength(10)
    fold = (
        0.35 * max(0, p.who.age - 0.2)
        + 0.55 * smile
        + 0.75 * lift
        + 0.9 * deepen
        + 0.35 * p.strength(9, side)
    )
    if fold > 0.04:
        base = 0.27 + 0.035 * p.who.nose_length
        line = [
            (0.20 + 0.02 * smile, base - 0.06 - 0.07 * lift),
            (0.36 + 0.10 * smile + 0.06 * lift, base + 0.02),
            (side * corner[0] + 0.10, corner[1] - 0.02) if smile or not deepen else (0.40, mouth.y - 0.06),
        ]
        p.fold(line, p.crease(fold), 1.2 + 0.9 * deepen + 0.4 * lift, side)
    if dimple:
        p.disc(corner + (side * 0.06, 0.0), 0.07, 0.09, p.deep_crease(0.25 + 0.35 * dimple))
    for au, points, onset, gain, width, on_beard in _CORNER_MARKS:
        if strength := p.strength(au, side):
            colour = (p.deep_crease if on_beard else p.crease)(onset + gain * strength)
            p.fold(points, colour, width, side, corner)


def _paint_lips(p: Painter, mouth: _Mouth) -> None:
    """The open mouth with teeth and tongue, both lips, the line between them, the lower one's shine."""
    if mouth.gap_up + mouth.gap_low > 0.02:
        upper, lower = mouth.inner_up, mouth.inner_low
        p.fill(np.vstack([upper, lower[::-1]]), (74, 22, 26))
        opening = (lower - upper) * [0, 1]
        if not p.strength(22):
            p.fill(np.vstack([upper, (upper + np.minimum(opening * 0.62, 0.075))[::-1]]), (240, 238, 230))
        if p.strength(16):
            teeth = lower - np.minimum(opening * 0.4, 0.05)
            p.fill(np.vstack([lower[2:-2], teeth[2:-2][::-1]]), (226, 224, 214))
        if p.strength(27):
            p.disc((0, mouth.edge_low - 0.02), 0.16, 0.06, (176, 78, 82))
    tongue, tight, press, suck = (p.strength(au) for au in (19, 23, 24, 28))
    red = mix(p.skin, (176, 70, 76), 0.55 + 0.15 * p.who.lip_redness)
    red = mix(mix(red, p.shadow, 0.05 + 0.25 * tight), p.light, 0.35 * press)
    p.fill(np.vstack([mouth.upper_top, mouth.inner_up[::-1]]), mix(red, (60, 10, 20), 0.14))
    p.fill(np.vstack([mouth.inner_low, mouth.lower_bottom[::-1]]), red)
    if tongue:
        p.disc((0, mouth.edge_low + 0.05 * tongue), 0.13, 0.07 + 0.07 * tongue, (206, 98, 104))
        p.stroke([(0, mouth.edge_low), (0, mouth.edge_low + 0.09 * tongue)], (166, 66, 74), 1)
    if mouth.gap_up + mouth.gap_low <= 0.06:
        width = 1.2 + 1.0 * press + 0.6 * suck
        p.stroke(mouth.inner_up, mix(red, (40, 8, 14), 0.65 + 0.25 * press), width)
    if not suck and not press and not tight:
        y = mouth.bottom - 0.45 * mouth.thick_low
        p.stroke([mouth.across(0.4, y), mouth.across(0.6, y)], mix(red, (255, 255, 255), 0.22), 1.4)
