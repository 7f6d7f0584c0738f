"""Who it is: the head's shape, skin, hair and glasses, drawn at random and painted on the head."""

from collections import namedtuple
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np

from .expression import bump, furrows, ramp
from .head import BASIS, MEAN, canvas

SKIN = np.array(
    [(0.84, 0.60, 0.49), (0.74, 0.48, 0.36), (0.60, 0.37, 0.25), (0.42, 0.24, 0.15), (0.23, 0.12, 0.075)]
    + [(0.10, 0.052, 0.034)]
)
"""Albedos from the fairest to the darkest, linear; so are all colours here."""
HAIR = {
    "black": (0.010, 0.009, 0.008),
    "dark": (0.030, 0.018, 0.012),
    "brown": (0.085, 0.045, 0.023),
    "blond": (0.34, 0.21, 0.10),
    "red": (0.22, 0.075, 0.025),
    "grey": (0.22, 0.215, 0.21),
    "white": (0.52, 0.51, 0.49),
}
EYES = {
    "brown": (0.10, 0.045, 0.018),
    "dark": (0.035, 0.018, 0.010),
    "blue": (0.10, 0.20, 0.33),
    "green": (0.12, 0.17, 0.08),
    "grey": (0.19, 0.21, 0.22),
}
HAIRSTYLES = ("short", "long", "bob", "fringe", "bald")
BEARDS = ("none", "stubble", "full", "goatee", "moustache")
FRAMES = ((0.01, 0.01, 0.01), (0.08, 0.03, 0.01), (0.25, 0.25, 0.27), (0.02, 0.02, 0.10))
LINES = (1, 2, 4, 6, 7, 12, 15)  # the AUs whose furrows age leaves at rest

Looks = namedtuple(
    "Looks",
    "skin flush rings mottle spots lipstick hairline fringe volume brow_start brow_height brow_arch "
    "brow_width brow_density lashes",
    defaults=(0.3, 0.3, 0.3, 0.03, 0, 0, 0.070, 0.032, 0.012, 0.011, 0, 0.004, 0.0033, 0.75, 1),
)
"""What a face is painted with: `skin` from 0 (fair) to 1 (dark), shares, lengths in metres."""


@dataclass(frozen=True)
class Identity:
    """Who it is.

    `male`, `african` and `asian` are shares, `age` is in years; `shape` are the head's components [56] in
    standard deviations; `lines` how deep the furrows of `LINES` are at rest; `lens` half a lens' width and
    height and its frame's thickness in metres, none without glasses.
    """

    male: float = 0.5
    age: float = 35.0
    african: float = 0.33
    asian: float = 0.33
    shape: tuple[float, ...] = ()
    looks: Looks = Looks()
    hair: str = "brown"
    hairstyle: str = "short"
    beard: str = "none"
    eyes: str = "brown"
    lens: tuple[float, ...] = ()
    lines: tuple[float, ...] = ()
    seed: int = 0

    def head(self) -> np.ndarray:
        """The vertices of the head at rest, [V, 3]."""
        traits = self.male - 0.5, (self.age - 18) / 62 - 0.5, self.african - 1 / 3, self.asian - 1 / 3
        return MEAN + (np.float32((*traits, *self.shape)) @ BASIS[: 4 + len(self.shape)]).reshape(MEAN.shape)


def random_identity(rng: np.random.Generator) -> Identity:
    """Draw a person of 18 to 80."""
    african, asian, european = rng.dirichlet([0.55] * 3).tolist()
    age, is_male = float(rng.uniform(18, 80)), bool(rng.random() < 0.5)
    old, is_dark = float(np.clip((age - 35) / 40, 0, 1)), african + asian > 0.55
    chances = (0.6, 0.3, 0.1, 0, 0) if is_dark else (0.08, 0.25, 0.35, 0.25, 0.07)
    colours = ("black", "dark", "brown", "blond", "red")
    if rng.random() < 0.65 * old:
        colours, chances = ("grey", "white"), (1 - 0.5 * old, 0.5 * old)
    styles = (0.62, 0.04, 0.02, 0.14, 0.18) if is_male else (0.15, 0.48, 0.15, 0.22, 0.0)
    deep = rng.normal(*((0.75 * old, 0.22) if old else (0.06, 0.1)), len(LINES)).clip(0, 0.95)
    between = {
        "flush": (0.1, 0.55),
        "rings": (0, 0.8),
        "mottle": (0.02 + 0.04 * old, 0.06 + 0.04 * old),
        "hairline": (0.060, 0.096 if is_male else 0.078),
        "fringe": (0.022, 0.045),
        "volume": (0.006, 0.018),
        "brow_start": (0.009, 0.014),
        "brow_arch": (0.0015, 0.0065),
        "brow_width": (0.0034, 0.0058) if is_male else (0.0024, 0.0042),
        "brow_density": (0.65, 1.0),
        "lashes": (0.6, 1.0) if is_male else (1.0, 1.6),
    }
    looks = Looks(
        **{name: round(float(rng.uniform(*limits)), 5) for name, limits in between.items()},
        skin=float(np.clip(0.86 * african + 0.3 * asian + 0.11 * european + rng.normal(0, 0.09), 0, 1)),
        spots=float(max(0, rng.normal(0.3 * old, 0.4))),
        lipstick=float(rng.uniform(0.3, 1)) if not is_male and rng.random() < 0.35 else 0.0,
        brow_height=float(rng.normal(0, 0.0012)),
    )
    return Identity(
        *(float(is_male), age, african, asian),
        shape=tuple(rng.normal(0, 0.8, 56).clip(-2, 2).round(3).tolist()),
        looks=looks,
        hair=str(rng.choice(colours, p=chances)),
        hairstyle=str(rng.choice(HAIRSTYLES, p=styles)),
        beard=str(rng.choice(BEARDS, p=(0.5, 0.2, 0.16, 0.08, 0.06))) if is_male else "none",
        eyes=str(rng.choice(list(EYES), p=(0.6, 0.4, 0, 0, 0) if is_dark else (0.3, 0.05, 0.35, 0.15, 0.15))),
        lens=tuple(rng.uniform((0.021, 0.015, 0.0012), (0.026, 0.021, 0.003)).round(4).tolist())
        if rng.random() < 0.17
        else (),
        lines=tuple(deep.round(3).tolist()),
        seed=int(rng.integers(2**31)),
    )


@cache
def _grain(height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise [H, W] of unit variance: pores, blotches, strands of hair."""
    shape, rng, scale = canvas(height).x.shape, np.random.default_rng(7), height / 304
    parts = [
        x
        * y
        * cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), sigmaX=x * scale, sigmaY=y * scale)
        for x, y in ((0.8, 0.8), (3, 3), (7, 7), (15, 15), (0.55, 6))
    ]
    return tuple(noise / noise.std() for noise in (parts[0], sum(parts[1:4]), parts[4]))


@cache
def _zones(height: int) -> dict[str, np.ndarray]:
    """Maps [H, W], 0 to 1, that are the same for everyone."""
    c = canvas(height)
    x, y, z = c.side, c.y, c.z
    jaw = ramp(-0.052 - 0.35 * np.maximum(x - 0.02, 0) + 0.05 * ramp(x, 0.06, 0.075) - z, -0.004, 0.010)
    jaw = jaw * (1 - ramp(-z, 0.118, 0.135)) * (1 - ramp(c.lips, 0.2, 0.5)) * (1 - ramp(y, 0.05, 0.07))
    jaw = jaw * (1 - 0.75 * bump(np.hypot(x, (z + 0.0935) * 0.9), 0.006))
    whiskers = ramp(x, 0.066, 0.072) * (1 - ramp(x, 0.080, 0.083)) * (z < 0.01) * (z > -0.08) * (y < 0.07)
    upper, lid = z > -0.0025 + 0.125 * (x - 0.033), (np.abs(x - 0.033) < 0.017) & (y < 0)
    zones = {
        "red": bump(np.hypot((x - 0.040) / 1.2, z + 0.036), 0.020)
        + 0.8 * bump(np.hypot(x, z + 0.040), 0.013)
        + 0.3 * bump(np.hypot(x, z + 0.105), 0.014)
        + 0.25 * (x > 0.075),
        "rings": bump(np.hypot((x - 0.032) / 1.6, z + 0.010), 0.011),
        "lid": bump(np.hypot((x - 0.033) / 1.5, z - 0.004), 0.010),
        "lips": (c.lips * 1.15).clip(0, 1) * 0.92,
        "stubble": np.maximum(jaw, 0.8 * whiskers) * 0.33,
        "full": np.maximum(jaw, 0.8 * whiskers),
        "goatee": jaw * bump(x, 0.026),
        "moustache": jaw * (z > -0.074) * (x < 0.034),
        "upper lash": ramp(-c.rim, -0.0021, -0.0008) * upper * lid,
        "lower lash": 0.45 * ramp(-c.rim, -0.0013, -0.0003) * ~upper * lid,
        "temples": 0.010 * np.cos(x / 0.05 * np.pi) * (x < 0.05)
        - 1.1 * np.maximum(x - 0.052, 0)
        - 0.7 * np.maximum(y - 0.01, 0),
        "back": ramp(y, 0.030, 0.050) * ramp(z, -0.075, -0.060),
        "ear": (x > 0.080) & (z < 0.025) & (z > -0.062),
    }
    return {name: zone.astype(np.float32) for name, zone in zones.items()}


def _brow(looks: Looks, height: int) -> np.ndarray:
    """Where brows grow [H, W], 0 to 1."""
    c = canvas(height)
    along = (c.side - looks.brow_start) / 0.041
    middle = 0.0165 + looks.brow_height + looks.brow_arch * np.sin(along.clip(0, 1) ** 1.3 * 0.85 * np.pi)
    width = looks.brow_width * np.interp(along, [0, 0.12, 0.5, 1], [0.75, 1, 0.9, 0.3])
    across = np.abs(c.z - middle + 0.004 * ramp(along, 0.65, 1.1)) / width
    brow = (1.35 - across).clip(0, 1) * ramp(along, -0.04, 0.10) * (1 - ramp(along, 0.88, 1.06))
    return looks.brow_density * (brow * (1 + 0.3 * _grain(height)[2]) * (c.y < 0.035)).clip(0, 1)


def _glasses(who: Identity, height: int) -> np.ndarray:
    """Where the frame of the glasses is, a mask [H, W]."""
    x, z, (wide, high, thick) = canvas(height).side, canvas(height).z, who.lens
    lens = (np.abs((x - 0.0335) / wide) ** 2.6 + np.abs((z + 0.005) / high) ** 2.6) ** (1 / 2.6)
    bridge = (x < 0.0335 - wide * 0.9) & (np.abs(z - 0.003) < 0.0016)
    temple = (x > 0.0335 + wide * 0.95) & (np.abs(z - 0.005) < 0.0019)
    return ((np.abs(lens - 1) < thick / wide) | bridge | temple) & (canvas(height).y < 0.080)


@lru_cache(8)
def paint(who: Identity, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a person on the canvas.

    Returns:
        Albedo [H, W, 3], depth of the lines at rest [H, W], and where hair is [H, W], 0 to 1.
    """
    c, zones, looks = canvas(height), _zones(height), who.looks
    pores, blotches, strands = _grain(height)
    pores, blotches = (np.roll(noise, who.seed % c.x.shape[1], 1) for noise in (pores, blotches))
    hair = np.array(HAIR[who.hair], np.float32) * (0.75 + 0.5 * (who.seed % 97) / 97)
    skin = [np.interp(looks.skin, np.linspace(0, 1, len(SKIN)), channel) for channel in SKIN.T]
    bare, red = np.array(skin) * (0.86, 0.48, 0.50), np.array((0.25, 0.036, 0.042))
    shades = [
        looks.flush * zones["red"],
        0.35 * (looks.rings * zones["rings"] + 0.35 * zones["lid"]),
        -looks.mottle * (0.6 * blotches + 0.5 * pores),
        0.5 * looks.spots * ramp(0.4 * blotches + pores, 2.2, 3.2),
    ]
    absorbed = np.array([(0.08, 0.45, 0.40), (0.8, 1, 0.8), (0.5, 0.9, 0.9), (0.6, 0.9, 1)], np.float32)
    albedo = np.array(skin, np.float32) * (1 - cv2.transform(cv2.merge(shades), absorbed.T))
    top = looks.hairline + zones["temples"]
    if who.hairstyle == "fringe":
        top = np.minimum(top, looks.fringe + 0.0014 * strands - 0.8 * np.maximum(c.side - 0.045, 0))
    grown = np.maximum(ramp(c.z + 0.0025 * strands - top, -0.004, 0.005), zones["back"]) * (1 - zones["ear"])
    grown *= who.hairstyle != "bald"
    beard = 0.85 * zones[who.beard] * (1 + 0.35 * strands) if who.beard != "none" else 0 * grown
    for zone, colour in (
        (zones["lips"], (1 - 0.6 * looks.lipstick) * bare + looks.lipstick * red),
        (beard, 0.8 * hair),
        (_brow(looks, height), np.minimum(0.8 * hair, 0.45 * np.array(skin))),
        (looks.lashes * zones["upper lash"] + zones["lower lash"], (0.02, 0.015, 0.012)),
        (grown, hair * (1 + 0.35 * strands[..., None])),
        *([(_glasses(who, height), FRAMES[who.seed % len(FRAMES)])] if who.lens else ()),
    ):
        share = np.minimum(zone, 1, dtype=np.float32)[..., None]
        albedo += share * (np.asarray(colour, np.float32) - albedo)
    lines = (depth * furrows(height)[au] for au, depth in zip(LINES, who.lines, strict=False))
    return albedo.clip(0.004, 1), sum(lines, np.zeros_like(c.x)), grown
