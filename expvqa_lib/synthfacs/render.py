"""Rendering of a face: head, light, camera, and the damage that pictures suffer."""

import json
from collections import namedtuple
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import SettingsError
from .expression import AUS, furrows, unit_weights
from .head import (
    FACES,
    INSIDE,
    LANDMARK_VERTICES,
    LIGHT,
    MEAN,
    PART,
    UNITS,
    canvas,
    rasterise,
    vertex_normals,
)
from .identity import EYES, HAIR, Identity, Looks, paint
from .shading import shade

PIVOT = np.array([0.0, 0.06, -0.04])  # metres; the head turns around it
SHADOW = 80  # pixels of 3.8 mm


@dataclass(frozen=True)
class Scene:
    """The picture around a face: camera, light, background, and what befalls the picture."""

    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw to the image's right, pitch down, roll; degrees
    framing: tuple[float, float, float] = (1.0, 0.0, 0.0)  # zoom; shift right and down, shares of the side
    distance: float = 0.8  # metres from the camera
    lamp: tuple[float, float, float] = (-0.45, -0.8, 0.55)  # the direction to it
    light: tuple[float, float, float, float] = (0.95, 0.45, 0.0, 0.4)  # lamp, sky, warmth, exposure
    background: tuple[float, ...] = (0.25, 0.26, 0.28, 0.30, 0.31, 0.33)  # two colours, linear
    clothes: tuple[float, float, float] = (0.06, 0.07, 0.09)
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

        parts = json.loads(
            text,
            object_pairs_hook=lambda pairs: {
                int(key) if key.isdigit() else key: tuple(value) if isinstance(value, list) else value
                for key, value in pairs
            },
        )
        who = Identity(**parts["identity"] | {"looks": Looks(*parts["identity"]["looks"])})
        return Face(**parts | {"identity": who, "scene": Scene(**parts["scene"])})


Rendering = namedtuple("Rendering", "image landmarks")
"""A rendered face: `image` uint8 [S, S, 3]; `landmarks` float32 [70, 2] in pixels, x then y: iBUG's 68 in its
order, then the cheeks."""


def render(face: Face, size: int = 96) -> Rendering:
    """Render a face [size, size, 3], framed as `data.crop_face` frames photographs: the eyes at 40 % and the
    chin at 94 % of the height. The same face and size always give the same pixels."""
    who, scene, side = face.identity, face.scene, round(1.1 * size)
    height = 100 if size <= 128 else 304
    points, normals, seen, turn = _place(face, side)
    values = np.column_stack([points, normals, MEAN, canvas(height).uv, LIGHT, INSIDE]).astype(np.float32)
    _, triangle, values = rasterise(seen, FACES, values, side, side, 1)
    lamp = np.float32(scene.lamp) / np.float32(np.linalg.norm(scene.lamp))
    lamp_sees, to_shadow = _lamp_view(points, lamp)
    shadow = rasterise(lamp_sees, FACES[PART[FACES[:, 0]] == 0], points[:, :0], SHADOW, SHADOW, 0)[0]
    key, sky, warmth, _ = scene.light
    tint = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    light = np.float32([key * tint, sky * (1 + (1 - tint) / 2)])
    picture, shown = _background(face, seen, side), triangle >= 0
    kind = np.where(shown, PART[FACES[triangle, 0]], -1)
    albedo, relief = _surface(face, height)
    picture[shown] = shade(kind, values, albedo, relief, EYES[who.eyes], turn, lamp, light, shadow, to_shadow)
    image = _expose(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), scene)
    return Rendering(image, (seen[LANDMARK_VERTICES, :2] * size / side).astype(np.float32))


def _surface(face: Face, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The canvas as the face acts: albedo [H, W, 3]; slopes to the left and up, hair, lips [H, W, 4]."""
    albedo, lines, hair = paint(face.identity, height)
    acted = sum((strength * furrows(height).get(au, 0) for au, strength in face.aus.items()), 0)
    depth = np.minimum(lines + acted, 1.15)
    left, up = (0.00041 * height * cv2.Sobel(depth, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
    albedo = albedo * (1 - 0.3 * depth[..., None] * np.array((0.75, 1, 1.1), np.float32))
    albedo[canvas(height).z < -0.146] = face.scene.clothes
    return albedo, cv2.merge([-left, up, hair, canvas(height).lips])


def _place(face: Face, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices and normals [V, 3] before the camera, in pixels and depth [V, 3], the head's rotation."""
    who, scene, rest = face.identity, face.scene, face.identity.head()
    weights = unit_weights(face.aus, face.lateral, face.gaze)
    moved = np.flatnonzero(weights)  # most face units are at rest
    points = (rest + (weights[moved] @ UNITS[moved]).reshape(MEAN.shape)).astype(np.float32)
    normals = vertex_normals(points)
    hair, c = paint(who, 100)[2], canvas(100)
    x, y = c.uv.astype(int).T.clip(0, np.array(hair.shape)[::-1, None] - 1)
    grown = cv2.GaussianBlur(hair, (0, 0), 0.85)[y, x] * ((PART == 0) & (INSIDE < 0.5))
    points += normals * (who.looks.volume * grown)[:, None]
    turn = Rotation.from_euler("zxy", np.array(scene.pose) * (1, -1, -1), degrees=True).as_matrix()
    points, rest = (points - PIVOT) @ turn.T + PIVOT, (rest[LANDMARK_VERTICES[8]] - PIVOT) @ turn.T + PIVOT
    eyes = np.mean([points[k == PART].mean(0) for k in (2, 3)], axis=0)
    away, (zoom, *shift) = points[:, 1:2] + scene.distance, scene.framing
    scale = 0.54 * side / max(0.08, eyes[2] - rest[2]) * (scene.distance + eyes[1]) * zoom
    seen = (points[:, [0, 2]] - [(eyes[0] + rest[0]) / 2, eyes[2]]) * [1, -1] * scale / away
    seen += side * (np.array([0.5, 0.4]) + shift)
    turn, seen = turn.astype(np.float32), np.column_stack([seen, away]).astype(np.float32)
    return points.astype(np.float32), normals @ turn.T, seen, turn


def _lamp_view(points: np.ndarray, lamp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices as the lamp sees them: pixels and depth [V, 3], and the map [3, 4] that does it."""
    right = np.array([lamp[1], -lamp[0], 0]) / np.hypot(*lamp[:2])
    axes = np.stack([right * SHADOW / 0.3, np.cross(lamp, right) * SHADOW / 0.3, -lamp])
    shift = np.array([SHADOW / 2, SHADOW / 2, 0]) - axes @ [0, 0.05, -0.03]
    return (points @ axes.T + shift).astype(np.float32), np.column_stack([axes, shift]).astype(np.float32)


def _background(face: Face, seen: np.ndarray, side: int) -> np.ndarray:
    """What is behind the head: two colours, shoulders, long hair."""
    who, scene, rng = face.identity, face.scene, np.random.default_rng(face.scene.seed)
    first, second = np.float32(scene.background).reshape(2, 3)
    shares = cv2.resize(
        rng.random([2 + scene.seed % 7] * 2, np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    picture = first + shares[..., None] * (second - first)
    skin, y = (PART == 0) & (np.abs(MEAN[:, 0]) > 0.06) & (MEAN[:, 1] < 0.12), np.arange(side)[:, None]
    left, right = seen[skin, 0].min(), seen[skin, 0].max()
    x = (np.arange(side) - (left + right) / 2) / ((right - left) / 2)
    neck = seen[np.abs(MEAN[:, 2] + 0.146) < 0.004, 1].mean()
    picture[y > neck + 0.12 * side * (np.abs(x) - 0.5).clip(0)] = scene.clothes
    if who.hairstyle in ("long", "bob"):
        across = np.abs(x) / (1.02 + 8 * who.looks.volume)
        end = (1.4 if who.hairstyle == "long" else 0.92) * side - 0.25 * side * across**4
        inside = (across < 1 + 0.03 * np.sin(23 * y / side)) & (y < end)
        inside &= y > seen[PART == 0, 1].min() + side * (0.3 - 0.25 * np.sqrt((1 - across**2).clip(0, 1)))
        strands = np.random.default_rng(who.seed).random((2, side // 2), np.float32)
        strands = 0.35 * (0.4 + 0.6 * scene.light[0]) * (0.75 + 0.5 * cv2.resize(strands, (side, side)))
        picture[inside] = strands[inside][:, None] * np.array(HAIR[who.hair], np.float32)
    return picture


def _expose(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """Linear light to uint8: exposure, film's shoulder, blur, noise, grey, JPEG."""
    value = picture * scene.light[3] / (0.12 + picture.mean())  # as cameras expose
    value = np.where(value > 0.7, 0.7 + 0.3 * np.tanh((value - 0.7) / 0.3), value).clip(0, 1)
    value = 255 * value ** (1 / 1.6)  # cameras add contrast to the standard's 2.2
    value = cv2.GaussianBlur(value, (0, 0), max(1e-3, scene.blur * len(value)))
    value += scene.noise * np.random.default_rng(scene.seed).standard_normal(value.shape, np.float32)
    value = np.repeat(value @ np.float32([[0.299], [0.587], [0.114]]), 3, 2) if scene.grey else value
    image = np.rint(value).clip(0, 255).astype(np.uint8)
    if scene.jpeg:
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg])[1]
        image = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return image


def random_scene(rng: np.random.Generator, spread: float = 1.0) -> Scene:
    """Draw a view; `spread` scales how far pose, light and damage stray from a frontal studio picture."""
    away = spread * np.array((0.65, 0.15, 0.3))
    return Scene(
        pose=tuple((rng.normal(0, (11, 7, 4)) * spread).clip((-35, -20, -15), (35, 20, 15)).tolist()),
        lamp=tuple(rng.normal((-0.1, -0.8, 0.45), away).clip(None, (9, -0.4, 9)).round(3).tolist()),
        framing=tuple((rng.normal(0, (0.07, 0.02, 0.02)) * spread + (1.1, 0, 0)).tolist()),
        distance=float(rng.uniform(0.45, 1.4)),
        light=tuple(rng.uniform((0.5, 0.2, -0.1 * spread, 0.3), (1.5, 0.65, 0.1 * spread, 0.52)).tolist()),
        background=tuple((np.repeat(rng.random(2) ** 1.5, 3) * rng.uniform(0.5, 1.2, 6)).round(3).tolist()),
        clothes=tuple((rng.random(3) ** 2 * rng.uniform(0.05, 0.8)).round(3).tolist()),
        blur=float(rng.uniform(0.002, 0.012) * spread) if rng.random() < 0.7 * spread else 0.0,
        noise=float(rng.uniform(0, 6) * spread) if rng.random() < 0.5 * spread else 0.0,
        jpeg=int(rng.integers(30, 96)) if rng.random() < 0.5 * spread else 0,
        grey=bool(rng.random() < 0.3 * spread),
        seed=int(rng.integers(2**31)),
    )


def au_mask(face: Face, au: int, size: int = 96) -> np.ndarray:
    """Return the pixels that an AU changed by more than 12 grey levels, bool [size, size]."""
    clean = replace(face, scene=replace(face.scene, noise=0.0, jpeg=0))
    rest = replace(clean, aus={other: value for other, value in face.aus.items() if other != au})
    return cv2.absdiff(render(clean, size).image, render(rest, size).image).max(2) > 12
