"""A face as data: identity, scene (pose, light, background) and action units.

Geometry is in *face units*: the origin lies between eyes and mouth, the cheekbones are at x = -1 and 1,
y points down, the chin rests near y = 1. `left` and `right` are the viewer's.
"""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from ..errors import SettingsError

AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 43)
"""The AUs that can be drawn."""

HAIR = {
    "black": (32, 27, 26),
    "brown": (84, 54, 36),
    "blond": (208, 170, 104),
    "red": (156, 74, 38),
    "grey": (158, 156, 154),
}
EYES = {"brown": (92, 56, 28), "blue": (66, 120, 182), "green": (78, 134, 84), "grey": (118, 128, 138)}
BACKGROUNDS = {
    "white": (228, 228, 226),
    "grey": (138, 140, 146),
    "blue": (98, 136, 182),
    "green": (120, 158, 124),
    "yellow": (216, 194, 128),
    "red": (172, 98, 94),
}
HAIRSTYLES = ("short", "long", "parted", "fringe", "bald")
SKIN = np.array(
    [(250, 222, 200), (240, 200, 170), (222, 172, 134), (188, 132, 94), (142, 92, 62), (98, 62, 44)], float
)


@dataclass(frozen=True)
class Identity:
    """Who it is: `skin` and `age` run from 0 to 1, shapes are offsets around 0, about -1 to 1."""

    skin: float = 0.3
    hair: str = "brown"
    hairstyle: str = "short"
    eyes: str = "brown"
    age: float = 0.2
    beard: float = 0.0  # 0 none, up to 1 full
    glasses: bool = False
    face_width: float = 0.0
    jaw_width: float = 0.0
    chin_length: float = 0.0
    eye_spacing: float = 0.0
    eye_size: float = 0.0
    eye_tilt: float = 0.0
    brow_height: float = 0.0
    brow_thickness: float = 0.0
    brow_arch: float = 0.0
    nose_width: float = 0.0
    nose_length: float = 0.0
    mouth_width: float = 0.0
    mouth_height: float = 0.0
    lip_fullness: float = 0.0
    lip_redness: float = 0.0


SHAPE = tuple(
    name
    for name, kind in Identity.__annotations__.items()
    if kind is float and name not in ("skin", "age", "beard")
)
"""Names of the identity's shape offsets."""


@dataclass(frozen=True)
class Scene:
    """The picture around it: pose (yaw, pitch: -1 to 1; roll: degrees), place, light, noise, background."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0  # share of the image side
    shift_y: float = 0.0
    light_x: float = 0.0  # brightness gained from one side of the frame to the other
    light_y: float = 0.0
    exposure: float = 1.0
    noise: float = 0.0  # standard deviation in grey levels
    background: str = "grey"
    clothes: tuple[int, int, int] = (70, 90, 120)
    seed: int = 0  # of the noise


@dataclass(frozen=True)
class Face:
    """A face to draw: `aus` are intensities in (0, 1]; `lateral` is an AU's side, -1 left only, 1 right only.

    SettingsError where an AU cannot be drawn.
    """

    identity: Identity = field(default_factory=Identity)
    scene: Scene = field(default_factory=Scene)
    aus: dict[int, float] = field(default_factory=dict)
    lateral: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.aus) - set(AUS)):
            raise SettingsError(f"AU {unknown} cannot be drawn; SynthFACS draws {list(AUS)}")

    def to_json(self) -> str:
        """Return everything needed to draw the face again."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Face":
        """Inverse of `to_json`."""
        value = json.loads(text)
        value["scene"]["clothes"] = tuple(value["scene"]["clothes"])
        aus, lateral = ({int(k): float(v) for k, v in value[key].items()} for key in ("aus", "lateral"))
        return Face(Identity(**value["identity"]), Scene(**value["scene"]), aus, lateral)


def random_identity(rng: np.random.Generator) -> Identity:
    """Draw a person."""
    age = float(rng.beta(1.6, 2.2))
    shape = np.clip(rng.normal(0, 0.5, len(SHAPE)), -1, 1).round(3).tolist()
    bearded, greys = rng.random() < 0.2, age > 0.75 and rng.random() < 0.6
    return Identity(
        hair="grey" if greys else str(rng.choice(list(HAIR)[:4], p=[0.35, 0.35, 0.2, 0.1])),
        skin=float(rng.random()),
        hairstyle=str(rng.choice(HAIRSTYLES, p=[0.28, 0.26, 0.2, 0.18, 0.08])),
        eyes=str(rng.choice(list(EYES), p=[0.4, 0.25, 0.2, 0.15])),
        age=age,
        beard=float(rng.uniform(0.3, 1)) if bearded else 0.0,
        glasses=bool(rng.random() < 0.12),
        **dict(zip(SHAPE, shape, strict=True)),
    )


def random_scene(rng: np.random.Generator, spread: float = 1.0) -> Scene:
    """Draw a view; `spread` scales how far pose, light and noise stray from a frontal studio picture."""
    pose = np.clip(rng.normal(0, 0.4 * spread, 7), -1, 1)
    return Scene(
        yaw=float(pose[0]),
        pitch=float(pose[1]) * 0.7,
        roll=float(pose[2]) * 12,
        scale=float(1 + 0.07 * pose[3]),
        shift_x=float(0.035 * pose[4]),
        shift_y=float(0.03 * pose[5]),
        light_x=float(rng.normal(0, 0.16 * spread)),
        light_y=float(rng.normal(0, 0.10 * spread)),
        exposure=float(np.clip(rng.normal(1, 0.08 * spread), 0.75, 1.2)),
        noise=float(rng.uniform(0, 4 * spread)),
        background=str(rng.choice(list(BACKGROUNDS))),
        clothes=tuple(int(v) for v in rng.integers(30, 210, 3)),
        seed=int(rng.integers(2**31)),
    )
