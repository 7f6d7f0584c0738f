"""Rendering of a face: head, light, camera, and the damage that pictures suffer."""

import json
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np

from expvqa_lib.errors import SettingsError

from .expression import AUS, furrows, unit_weights
from .head import EYE_CENTRES, FACES, INSIDE, LANDMARK_VERTICES, LIGHT, MEAN, PART, UNITS, canvas
from .identity import EYES, HAIR, Identity, paint
from .raster import rasterise, vertex_normals
from .shading import shade

PIVOT = np.array([0.0, 0.06, -0.04])  # metres; the head turns around it
SHADOW = 80  # pixels of 3.8 mm


@dataclass(frozen=True)
class Scene:
    """The picture around a face: pose (degrees), camera, light, background, and what befalls the picture."""

    yaw: float = 0.0  # to the image's right
    pitch: float = 0.0  # down
    roll: float = 0.0
    distance: float = 0.8  # metres from the camera
    zoom: float = 1.0
    shift_x: float = 0.0  # share of the image's side
    shift_y: float = 0.0
    lamp: tuple[float, float, float] = (-0.45, -0.8, 0.55)  # the direction to it
    key: float = 0.95
    sky: float = 0.52
    warmth: float = 0.0
    exposure: float = 1.05
    background: tuple[float, ...] = (0.25, 0.26, 0.28, 0.30, 0.31, 0.33)  # two colours, linear
    blobs: int = 3  # of the background, a side
    blur: float = 0.0  # standard deviation as a share of the image's side
    noise: float = 0.0  # grey levels
    jpeg: int = 0  # quality; 0 is no compression
    grey: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Face:
    """A face to render: `aus` are intensities in (0, 1]; `lateral` is an AU's side, -1 the subject's right
    only, 1 left only; `gaze` is to the image's right and up, -1 to 1.

    SettingsError where an AU cannot be rendered.
    """

    identity: Identity = field(default_factory=Identity)
    scene: Scene = field(default_factory=Scene)
    aus: dict[int, float] = field(default_factory=dict)
    lateral: dict[int, float] = field(default_factory=dict)
    gaze: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.aus) - set(AUS)):
            raise SettingsError(f"AU {unknown} cannot be rendered; SynthFACS renders {list(AUS)}")

    def to_json(self) -> str:
        """Return everything needed to render the face again."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Face":
        """Inverse of `to_json`."""

        def build(value: dict):
            value = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
            return {int(k): v for k, v in value.items()} if all(k.isdigit() for k in value) else value

        value = json.loads(text, object_hook=build)
        return Face(**value | {"identity": Identity(**value["identity"]), "scene": Scene(**value["scene"])})


@dataclass(frozen=True)
class Rendering:
    """A rendered face: `image` uint8 [S, S, 3]; `landmarks` float32 [70, 2] in pixels, x then y: iBUG's 68 in
    its order, then the cheeks."""

    image: np.ndarray
    landmarks: np.ndarray


def render(face: Face, size: int = 96) -> Rendering:
    """Render a face [size, size, 3], framed as `data.crop_face` frames photographs: the eyes at 40 % and the
    chin at 94 % of the height. The same face and size always give the same pixels."""
    who, scene, side = face.identity, face.scene, 2 * size if size < 400 else size
    height = 128 if size <= 128 else 304
    albedo, lines, hair = paint(who, height)
    depth = lines + sum((strength * furrows(height).get(au, 0) for au, strength in face.aus.items()), 0)
    depth = np.minimum(depth, 1.15)
    slope = 0.00041 * height
    maps = np.empty((*depth.shape, 7), np.float32)
    maps[..., :3] = albedo * (1 - 0.3 * depth[..., None] * np.array((0.75, 1, 1.1), np.float32))
    maps[..., 3] = -slope * cv2.Sobel(depth, cv2.CV_32F, 1, 0)
    maps[..., 4] = slope * cv2.Sobel(depth, cv2.CV_32F, 0, 1)
    maps[..., 5], maps[..., 6] = hair, canvas(height).lips

    rest, turn = who.head(), _rotation(scene)
    weights = unit_weights(face.aus, face.lateral, face.gaze)
    moved = np.flatnonzero(weights)  # most face units are at rest
    points = (rest + (weights[moved] @ UNITS[moved]).reshape(MEAN.shape)).astype(np.float32)
    uv = canvas(height).uv
    x, y = uv.astype(int).T.clip(0, np.array(hair.shape)[::-1, None] - 1)
    grown = cv2.GaussianBlur(hair, (0, 0), height / 150)[y, x] * ((PART == 0) & (INSIDE < 0.5))
    normals = vertex_normals(points, FACES)
    points += normals * (who.volume * grown)[:, None]
    points = ((points - PIVOT) @ turn.T + PIVOT).astype(np.float32)
    normals = normals @ turn.T
    eyes = np.mean([points[k == PART].mean(0) for k in (2, 3)], axis=0)
    chin = (rest[LANDMARK_VERTICES[8]] - PIVOT) @ turn.T + PIVOT
    away = points[:, 1:2] + scene.distance
    scale = 0.54 * side / max(0.08, eyes[2] - chin[2]) * (scene.distance + eyes[1]) * scene.zoom
    origin = side * np.array([0.5 + scene.shift_x, 0.4 + scene.shift_y])
    seen = origin + (points[:, [0, 2]] - [(eyes[0] + chin[0]) / 2, eyes[2]]) * [1, -1] * scale / away
    seen = np.column_stack([seen, away]).astype(np.float32)
    _, triangle, weights = rasterise(seen, FACES, side, side, 1)

    lamp = np.array(scene.lamp) / np.linalg.norm(scene.lamp)
    right = np.cross(lamp, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    to_shadow = np.empty((3, 4))
    to_shadow[:, :3] = right * SHADOW / 0.3, np.cross(lamp, right) * SHADOW / 0.3, -lamp
    to_shadow[:, 3] = np.array([SHADOW / 2, SHADOW / 2, 0]) - to_shadow[:, :3] @ [0, 0.05, -0.03]
    lamp_sees = (points @ to_shadow[:, :3].T + to_shadow[:, 3]).astype(np.float32)
    shadow, _, _ = rasterise(lamp_sees, FACES[PART[FACES[:, 0]] == 0], SHADOW, SHADOW, 0)

    tint = np.array([1 + scene.warmth, 1, 1 - scene.warmth])
    light = np.stack([scene.key * tint, scene.sky * (1 + (1 - tint) / 2)])
    picture = _background(scene, side)
    if who.hairstyle in ("long", "bob"):
        _hang_hair(picture, who, seen, light[0, 0])
    attributes = np.column_stack([points, normals, MEAN, uv, LIGHT, INSIDE]).astype(np.float32)
    eyes = EYE_CENTRES, np.array(EYES[who.eyes])
    surface = triangle, weights, FACES, PART, attributes, maps
    shade(picture, *surface, *eyes, turn, lamp, light, shadow, to_shadow)
    image = _expose(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), scene)
    return Rendering(image, (seen[LANDMARK_VERTICES, :2] * size / side).astype(np.float32))


def _rotation(scene: Scene) -> np.ndarray:
    """The head's rotation: yaw, then pitch, then roll."""
    turn = np.eye(3)
    for angle, (i, j) in ((scene.yaw, (0, 1)), (scene.pitch, (2, 1)), (scene.roll, (0, 2))):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        step = np.eye(3)
        step[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        turn = step @ turn
    return turn


def _background(scene: Scene, side: int) -> np.ndarray:
    rng, (first, second) = np.random.default_rng(scene.seed), np.float32(scene.background).reshape(2, 3)
    share = cv2.resize(
        rng.random((scene.blobs, scene.blobs), np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.ascontiguousarray(first + share[..., None] * (second - first), np.float32)


def _hang_hair(picture: np.ndarray, who: Identity, seen: np.ndarray, key: float) -> None:
    """Paint long hair behind the head, in place."""
    side, skin = len(picture), (PART == 0) & (np.abs(MEAN[:, 0]) > 0.06) & (MEAN[:, 1] < 0.12)
    left, right = seen[skin, 0].min(), seen[skin, 0].max()
    top = seen[PART == 0, 1].min() + 0.3 * side
    y, x = np.mgrid[:side, :side].astype(np.float32)
    across = np.abs(x - (left + right) / 2) / ((right - left) / 2 * (1.02 + 8 * who.volume))
    inside = (across < 1 + 0.03 * np.sin(23 * y / side)) & (
        y < (1.2 if who.hairstyle == "long" else 0.86) * side
    )
    inside &= y > top - 0.25 * side * np.sqrt((1 - across**2).clip(0, 1))
    strands = np.random.default_rng(who.seed).random((2, side // 2), np.float32)
    strands = 0.75 + 0.5 * cv2.resize(strands, (side, side))
    picture[inside] = (
        strands[inside][:, None] * np.array(HAIR[who.hair], np.float32) * 0.35 * (0.4 + 0.6 * key)
    )


def _expose(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """Linear light to uint8: exposure, film's shoulder, blur, noise, grey, JPEG."""
    value = picture * scene.exposure
    value = np.where(value > 0.7, 0.7 + 0.3 * np.tanh((value - 0.7) / 0.3), value).clip(0, 1)
    value = 255 * value ** (1 / 2.2)
    if scene.blur:
        value = cv2.GaussianBlur(value, (0, 0), scene.blur * len(value))
    if scene.noise:
        value = value + scene.noise * np.random.default_rng(scene.seed).standard_normal(
            value.shape, np.float32
        )
    if scene.grey:
        value = np.repeat(value @ np.array((0.299, 0.587, 0.114), np.float32)[:, None], 3, 2)
    image = np.rint(value).clip(0, 255).astype(np.uint8)
    if scene.jpeg:
        _, packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg])
        image = np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
    return image


def random_scene(rng: np.random.Generator, spread: float = 1.0) -> Scene:
    """Draw a view; `spread` scales how far pose, light and damage stray from a frontal studio picture."""
    yaw, pitch, roll = (rng.normal(0, (11, 7, 4)) * spread).clip((-35, -20, -15), (35, 20, 15)).tolist()
    lamp = rng.normal((-0.1, -0.8, 0.45), np.array((0.65, 0.15, 0.3)) * spread).clip(None, (9, -0.4, 9))
    return Scene(
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        distance=float(rng.uniform(0.45, 1.4)),
        zoom=float(1 + 0.05 * spread * rng.uniform(-1, 1)),
        shift_x=float(rng.normal(0, 0.015) * spread),
        shift_y=float(rng.normal(0, 0.015) * spread),
        lamp=tuple(lamp.round(3).tolist()),
        key=float(rng.uniform(0.5, 1.15)),
        sky=float(rng.uniform(0.35, 0.8)),
        warmth=float(rng.normal(0, 0.06) * spread),
        exposure=float(rng.uniform(0.85, 1.25)),
        background=tuple((rng.random(6) ** 1.5 * rng.uniform(0.2, 1)).round(3).tolist()),
        blobs=int(rng.integers(2, 9)),
        blur=float(rng.uniform(0, 0.012) * spread) if rng.random() < 0.5 else 0.0,
        noise=float(rng.uniform(0, 8) * spread) if rng.random() < 0.6 else 0.0,
        jpeg=int(rng.integers(30, 96)) if rng.random() < 0.5 else 0,
        grey=bool(rng.random() < 0.2),
        seed=int(rng.integers(2**31)),
    )


def au_mask(face: Face, au: int, size: int = 96, threshold: float = 12.0) -> np.ndarray:
    """Return the pixels that an AU changed by more than `threshold` grey levels, bool [size, size]."""
    clean = replace(face, scene=replace(face.scene, noise=0.0, jpeg=0))
    rest = replace(clean, aus={other: value for other, value in face.aus.items() if other != au})
    with_it, without = (render(f, size).image.astype(np.int16) for f in (clean, rest))
    return np.abs(with_it - without).max(2) > threshold
