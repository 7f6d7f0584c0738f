"""Drawing of the mouth, where most action units act, in face units (see `faces`)."""

from __future__ import annotations

import numpy as np

from .face import HAIR, Face, _curve, _mix


def paint_mouth(
    p, face: Face, a, jaw: float, chin_y: float, skin, shadow, light, line
) -> list[tuple[float, float]]:
    """Paint lips, teeth, tongue, folds and chin marks on a `drawing._Painter`; return the mouth's landmarks in face units.

    Args:
        a: intensity of an AU, on one side or the stronger of both.
        jaw: how far the jaw is dropped; chin_y: where the chin ends.
        line: colour of a skin fold by its depth.
    """
    who = face.identity
    pucker, funnel, tight, press, suck = a(18), a(22), a(23), a(24), a(28)
    part, drop, stretch = a(25), a(26), a(27)
    raise_lip, depress, chin, tongue = a(10), a(16), a(17), a(19)
    nose_base = 0.27 + 0.035 * who.nose_length
    y0 = 0.57 + 0.025 * who.mouth_height + 0.25 * jaw - 0.045 * chin
    w = (
        (0.34 + 0.03 * who.mouth_width)
        * (1 - 0.48 * pucker)
        * (1 - 0.30 * funnel)
        * (1 - 0.40 * tight)
        * (1 - 0.12 * stretch)
    )
    full = (1 + 0.3 * who.lip_fullness) * (1 + 0.35 * pucker) * (1 + 0.5 * funnel)
    full *= (1 - 0.58 * tight) * (1 - 0.66 * press) * (1 - 0.85 * suck)
    thick_top, thick_low = 0.060 * full, 0.088 * full * (1 + 0.15 * chin)
    gap_up = 0.032 * part + 0.02 * drop + 0.04 * stretch + 0.055 * funnel + 0.065 * raise_lip * (1 - press)
    gap_low = (
        0.050 * part
        + 0.045 * drop
        + 0.21 * stretch
        + 0.055 * funnel
        + 0.075 * depress * (1 - press)
        + 0.05 * tongue
    )
    if part:
        gap_low += 0.08 * drop
    bow = -0.06 * raise_lip
    corners = {}
    for side in (-1, 1):
        smile, frown, wide, dimple = a(12, side), a(15, side), a(20, side), a(14, side)
        dx = 0.12 * smile + 0.15 * wide - 0.02 * frown + 0.05 * dimple
        dy = -0.17 * smile + 0.17 * frown + 0.03 * wide + 0.03 * chin - 0.02 * dimple
        corners[side] = np.array([side * (w + dx), y0 + dy])
    left, right = corners[-1], corners[1]

    def deep(strength: float):
        """Colour of a fold that shows on skin and on a beard."""
        return _mix(
            _mix(skin, HAIR[who.hair], 0.5) if who.beard else skin, _mix(shadow, (20, 8, 8), 0.45), strength
        )

    def span(t: float, y: float) -> tuple[float, float]:
        """A point at share t of the way from the left to the right corner, at height y."""
        return (left[0] + t * (right[0] - left[0]), y)

    arch = -0.05 * chin  # the chin raiser bends the lips' line upwards
    edge_up, edge_low = y0 - gap_up + arch, y0 + gap_low + arch
    top = edge_up - thick_top + bow
    bottom = edge_low + thick_low
    peak = top - 0.012
    upper_top = np.vstack(
        [_curve([left, span(0.2, (left[1] + peak) / 2), span(0.36, peak), span(0.5, top + 0.012)], 7)]
        + [_curve([span(0.5, top + 0.012), span(0.64, peak), span(0.8, (right[1] + peak) / 2), right], 7)]
    )
    inner_up = _curve(
        [
            left,
            span(0.25, edge_up - 0.3 * gap_up),
            span(0.5, edge_up),
            span(0.75, edge_up - 0.3 * gap_up),
            right,
        ],
        11,
    )
    inner_low = _curve(
        [
            left,
            span(0.25, edge_low + 0.4 * gap_low),
            span(0.5, edge_low),
            span(0.75, edge_low + 0.4 * gap_low),
            right,
        ],
        11,
    )
    low_bottom = _curve(
        [left, span(0.2, bottom + 0.5 * thick_low), span(0.8, bottom + 0.5 * thick_low), right], 11
    )
    red = _mix(_mix(skin, (176, 70, 76), 0.55 + 0.15 * who.lip_redness), shadow, 0.05 + 0.25 * tight)
    red = _mix(red, light, 0.35 * press)

    for side in (-1, 1):  # nasolabial folds and marks at the corners
        smile, dimple, wide, frown = a(12, side), a(14, side), a(20, side), a(15, side)
        fold = min(
            1.0,
            0.35 * max(0, who.age - 0.2)
            + 0.55 * smile
            + 0.75 * raise_lip
            + 0.9 * a(11, side)
            + 0.35 * a(9, side),
        )
        corner = corners[side]
        start = (side * (0.20 + 0.02 * smile), nose_base - 0.06 - 0.07 * raise_lip)
        if fold > 0.04:
            end = (
                (corner[0] + side * 0.10, corner[1] - 0.02)
                if smile or not a(11, side)
                else (side * 0.40, y0 - 0.06)
            )
            out = (side * (0.36 + 0.10 * smile + 0.06 * raise_lip), nose_base + 0.02)
            p.stroke(_curve([start, out, end]), line(fold), 1.2 + 0.9 * a(11, side) + 0.4 * raise_lip)
        if dimple:  # dimpler: a tuck beside the corner
            tuck = _curve(
                [corner + (side * 0.06, -0.15), corner + (side * 0.20, 0.0), corner + (side * 0.06, 0.15)]
            )
            p.disc(corner + (side * 0.06, 0.0), 0.07, 0.09, deep(0.25 + 0.35 * dimple))
            p.stroke(tuck, deep(0.4 + 0.6 * dimple), 2.8)
        if wide:  # lip stretcher: two upright folds beside the corner
            for k in (0.06, 0.13):
                fold_line = [
                    corner + (side * k, -0.07),
                    corner + (side * (k + 0.03), 0),
                    corner + (side * k, 0.09),
                ]
                p.stroke(_curve(fold_line), line(0.65 * wide), 1.0)
        if frown:  # lip corner depressor: a pouch below the corner
            p.stroke(
                _curve(
                    [corner + (side * 0.03, 0.01), corner + (side * 0.08, 0.07), corner + (side * 0.03, 0.13)]
                ),
                deep(0.3 + 0.7 * frown),
                1.8,
            )
    if chin:  # chin raiser: the boss is pushed up and puckers
        p.stroke(
            _curve([(-0.20, chin_y - 0.13), (0, chin_y - 0.27), (0.20, chin_y - 0.13)]),
            deep(0.3 + 0.7 * chin),
            1.8,
        )
        for x, y in ((-0.09, -0.14), (0.09, -0.14), (0, -0.17), (-0.045, -0.09), (0.045, -0.09)):
            p.disc((x, chin_y + y), 0.018, 0.018, deep(0.3 + 0.6 * chin))
    elif not who.beard:
        p.stroke(_curve([(-0.10, bottom + 0.07), (0, bottom + 0.10), (0.10, bottom + 0.07)]), line(0.3), 1)

    if who.beard > 0.6:
        p.stroke(
            _curve([left - [0.02, 0.02], (0, y0 - 0.20 - gap_up + bow), right + [0.02, -0.02]]),
            HAIR[who.hair],
            3,
        )
    if gap_up + gap_low > 0.02:
        p.fill(np.vstack([inner_up, inner_low[::-1]]), (74, 22, 26))
        opening = inner_low[:, 1] - inner_up[:, 1]
        if not funnel:
            upper_teeth = inner_up + np.stack([np.zeros(11), np.minimum(opening * 0.62, 0.075)], 1)
            p.fill(np.vstack([inner_up, upper_teeth[::-1]]), (240, 238, 230))
        if depress:
            lower_teeth = inner_low - np.stack([np.zeros(11), np.minimum(opening * 0.4, 0.05)], 1)
            p.fill(np.vstack([inner_low[2:-2], lower_teeth[2:-2][::-1]]), (226, 224, 214))
        if stretch:
            p.disc((0, edge_low - 0.02), 0.16, 0.06, (176, 78, 82))
    p.fill(np.vstack([upper_top, inner_up[::-1]]), _mix(red, (60, 10, 20), 0.14))
    p.fill(np.vstack([inner_low, low_bottom[::-1]]), red)
    if tongue:
        p.disc((0, edge_low + 0.05 * tongue), 0.13, 0.07 + 0.07 * tongue, (206, 98, 104))
        p.stroke([(0, edge_low), (0, edge_low + 0.09 * tongue)], (166, 66, 74), 1)
    if gap_up + gap_low <= 0.06:
        p.stroke(inner_up, _mix(red, (40, 8, 14), 0.65 + 0.25 * press), 1.2 + 1.0 * press + 0.6 * suck)
    if not suck and not press and not tight:
        p.stroke(
            _curve([span(0.4, bottom - 0.45 * thick_low), span(0.6, bottom - 0.45 * thick_low)], 2),
            _mix(red, (255, 255, 255), 0.22),
            1.4,
        )
    if tight:  # lip tightener: fine upright lines around narrow lips
        for t in (0.1, 0.37, 0.63, 0.9):
            p.stroke([span(t, top - 0.03), span(t, top - 0.14)], deep(0.3 + 0.6 * tight), 1.4)
            p.stroke([span(t, bottom + 0.03), span(t, bottom + 0.13)], deep(0.3 + 0.6 * tight), 1.4)
    if press:  # lip pressor: bulges above and below the lips
        for y, bend in ((top - 0.045, -0.05), (bottom + 0.045, 0.05)):
            p.stroke(
                _curve([span(0.08, y - 0.4 * bend), span(0.5, y + bend), span(0.92, y - 0.4 * bend)]),
                deep(0.3 + 0.65 * press),
                2.2,
            )
    if pucker:
        for t in (0.0, 0.25, 0.75, 1.0):
            p.stroke([span(t, top - 0.02), span(0.5 + 1.5 * (t - 0.5), top - 0.10)], line(0.7 * pucker), 1.0)
    if suck:  # lip suck: the red disappears, skin folds over the line
        p.stroke(
            _curve([span(0.05, y0 - 0.05), span(0.5, y0 - 0.10), span(0.95, y0 - 0.05)]),
            line(0.6 * suck),
            1.3,
        )
        p.stroke(
            _curve([span(0.05, y0 + 0.06), span(0.5, y0 + 0.12), span(0.95, y0 + 0.06)]),
            line(0.6 * suck),
            1.3,
        )
    quarter = [(upper_top[4], upper_top[9]), (low_bottom[2], low_bottom[8])]
    middle = [span(0.5, y) for y in (top, edge_up, edge_low, bottom)]
    return [tuple(left), tuple(right), *middle, *(tuple(q) for pair in quarter for q in pair)]
