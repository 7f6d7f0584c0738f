"""The faces that the base is taught: rendered at random, what is known of them, and what befalls pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from expvqa_lib.synthfacs import (
    AUS,
    BEARDS,
    EYES,
    HAIR,
    HAIRSTYLES,
    Face,
    Rendering,
    on_all_cores,
    random_identity,
    random_scene,
    render,
)

CATEGORIES = {"hair": tuple(HAIR), "hairstyle": HAIRSTYLES, "beard": BEARDS, "eyes": tuple(EYES)}
"""What the vision encoder tells apart in words, beside its numbers."""


def random_face(rng: np.random.Generator) -> Face:
    """A face that moves at random: each AU by chance at any strength, without any emotion."""
    moved = rng.choice(AUS, size=rng.integers(0, 9), replace=False)
    aus = {int(au): float(rng.uniform(0.1, 1.0)) for au in moved}
    lateral = {au: float(np.clip(rng.normal(0, 0.3), -1, 1)) for au in aus}
    gaze = tuple(rng.normal(0, 0.35, 2).clip(-0.8, 0.8).tolist())
    return Face(random_identity(rng), random_scene(rng, spread=1.2), aus, lateral, gaze)


def _draw_chunk(arguments: tuple[int, int, int]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    seed, n, size = arguments
    rng = np.random.default_rng([20, seed])
    faces = [random_face(rng) for _ in range(n)]
    drawn = [render(face, size) for face in faces]
    at_rest = [render(replace(face, aus={}, lateral={}), size) for face in faces]
    motion = np.stack([_motion(*pair) for pair in zip(drawn, at_rest, strict=True)])
    return (
        [f.to_json() for f in faces],
        np.stack([d.image for d in drawn]),
        np.stack([d.landmarks for d in drawn]),
        motion,
    )


def _motion(face: Rendering, rest: Rendering) -> np.ndarray:
    """Motion of each landmark since rest in x and y, and the mean grey change around it: [L, 3]."""
    size = len(face.image)
    reach = size // 14
    change = np.abs(face.image.mean(2, dtype=np.float32) - rest.image.mean(2, dtype=np.float32))
    low = np.clip(np.round(face.landmarks).astype(int) - reach, 0, size - 2 * reach)
    found = [change[y : y + 2 * reach, x : x + 2 * reach].mean() for x, y in low]
    return np.concatenate([face.landmarks - rest.landmarks, np.array(found, np.float32)[:, None]], 1)


def draw_faces(n: int, size: int, seed: int = 0) -> tuple[list[Face], np.ndarray, np.ndarray, np.ndarray]:
    """Render `n` random faces, each also at rest, as two frames of a video would show.

    Returns:
        The faces, images uint8 [n, size, size, 3], landmarks float32 [n, 70, 2] in pixels, and their motion
        since rest float32 [n, 70, 3]: in x and y, and how much the grey around the landmark has changed.
    """
    chunks = [(seed * 100_000 + k, min(500, n - k), size) for k in range(0, n, 500)]
    parts = list(on_all_cores(_draw_chunk, chunks))
    faces = [Face.from_json(text) for part in parts for text in part[0]]
    return faces, *(np.concatenate([p[k] for p in parts]) for k in (1, 2, 3))


def geometry_targets(
    faces: list[Face], landmarks: np.ndarray, motion: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of the vision encoder: standardised numbers [n, R], category indices [n, CATEGORIES]."""
    people, scenes = [f.identity for f in faces], [f.scene for f in faces]
    numbers = [
        landmarks.reshape(len(faces), -1) / size,
        motion.reshape(len(faces), -1),
        np.array(
            [[*p.shape[:20], p.male, p.age, p.african, p.asian, p.looks.skin, bool(p.lens)] for p in people]
        ),
        np.array([[*s.pose, *s.lamp, *s.light[:2]] for s in scenes]),
        np.array([f.gaze for f in faces]),
    ]
    values = np.concatenate(numbers, 1).astype(np.float32)
    labels = [[p.hair, p.hairstyle, p.beard, p.eyes] for p in people]
    indices = np.array(
        [[names.index(v) for names, v in zip(CATEGORIES.values(), row, strict=True)] for row in labels]
    )
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-6), indices


def normalise(images: np.ndarray) -> Tensor:
    """Images uint8 [n, S, S, 3] to the processor's pixel values [n, 3, S, S]."""
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


def augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Grey, blurred and noisy pictures, other contrast and light, things before the face: [B, 3, S, S]."""
    batch, side = len(pixels), pixels.shape[-1]

    def drawn(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((batch, *shape), np.float32))

    grey = torch.from_numpy(rng.random(batch) < 0.3)[:, None, None, None]
    pixels = torch.where(grey, pixels.mean(1, keepdim=True), pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.lerp(
        pixels, blurred, torch.from_numpy(rng.uniform(-0.5, 1, (batch, 1, 1, 1)).astype(np.float32))
    )
    light = F.interpolate(0.25 * drawn(1, 3, 3), side, mode="bicubic")  # unlike that of any one lamp
    pixels = pixels * (1 + 0.25 * drawn(1, 1, 1)).clamp(0.5, 1.7) + 0.25 * drawn(1, 1, 1) + light
    pixels = pixels + 0.1 * drawn(1, 1, 1).abs() * drawn(1, side, side)
    for row in np.flatnonzero(rng.random(batch) < 0.25):
        (top, left), (height, width) = rng.integers(0, side - 8, 2), rng.integers(8, side // 3, 2)
        pixels[row, :, top : top + height, left : left + width] = float(rng.normal())
    return pixels
