"""Making the tiny base model of the quick profile in BLIP-2's stages, from general knowledge of faces alone.

1. `pretrain_vision`: the vision encoder predicts landmarks, motion since rest, pose, identity, scene, its
patches.
2. `pretrain_language`: the language model reads text alone: facts in a prefix, a question, an answer.
3. `align`: the Q-Former learns to give the frozen language model what questions about an image need.

The faces move at random, and no AU or emotion label of an image enters any stage.
`python -m tools.base_model.pretrain` rebuilds the base.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from expvqa_lib.expvqa import RENDERED_FACES
from expvqa_lib.files import atomic, fingerprint
from expvqa_lib.model import encode, make_processor
from expvqa_lib.model.forward import (
    answer_loss,
    cross_attention_weights,
    encode_images,
    language_inputs,
    query_image,
)
from expvqa_lib.synthfacs import AUS, BEARDS, EYES, HAIR, HAIRSTYLES, Face, Rendering, one_thread, render
from tools.base_model.build import TINY, Size, build
from tools.base_model.questions import PARTS, image_questions, measure, named, passage, random_face, to_spans
from tools.base_model.tokenizers import train_tokenizers


@dataclass(frozen=True)
class Budget:
    """Number of faces and steps of the three stages; by default two hours on two cores."""

    faces: int = 40_000
    vision_steps: int = 9000
    language_steps: int = 1200
    align_steps: int = 4000
    seed: int = 1


DEFAULT = Budget()
NOISE = 0.25  # largest deviation of the noise on an element of a fact; a word's embedding has norm 1 or so
CATEGORIES = {
    "hair": tuple(HAIR),
    "hairstyle": HAIRSTYLES,
    "beard": BEARDS,
    "eyes": tuple(EYES),
}


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
    with ProcessPoolExecutor(os.cpu_count(), initializer=one_thread) as pool:
        parts = list(
            tqdm(pool.map(_draw_chunk, chunks), total=len(chunks), desc="rendering faces", unit="x500")
        )
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


class _VisionHeads(nn.Module):
    """Heads for pretraining: over all patches numbers and categories, of each patch its grey picture."""

    def __init__(self, patches: int, width: int, numbers: int) -> None:
        super().__init__()
        self.sizes = [numbers, *(len(v) for v in CATEGORIES.values())]
        self.face = nn.Linear(patches * width, sum(self.sizes))
        self.patch = nn.Linear(width, 36)
        nn.init.normal_(self.face.weight, std=(patches * width) ** -0.5)

    def forward(self, embeds: Tensor) -> tuple[list[Tensor], Tensor]:
        patches = embeds[:, 1:]
        return list(self.face(patches.flatten(1)).split(self.sizes, 1)), self.patch(patches)


def pretrain_vision(
    model,
    images: np.ndarray,
    numbers: np.ndarray,
    categories: np.ndarray,
    *,
    steps: int,
    batch: int = 64,
    seed: int = 0,
) -> list[float]:
    """Stage 1. Train `model.vision_model` in place; return the loss of each step."""
    torch.manual_seed(seed)
    config = model.config.vision_config
    side = config.image_size // config.patch_size
    heads = _VisionHeads(side**2, config.hidden_size, numbers.shape[1])
    numbers, categories = torch.from_numpy(numbers), torch.from_numpy(categories)
    rng = np.random.default_rng([seed, 4])

    def loss_of(index: np.ndarray) -> Tensor:
        pixels = augment(normalise(images[index]), rng)
        found, patches = heads(encode_images(model, pixels))
        loss = 3 * F.smooth_l1_loss(found[0], numbers[index], beta=0.5)
        loss = loss + 0.15 * sum(
            F.cross_entropy(f, categories[index, k]) for k, f in enumerate(found[1:])
        ) / len(CATEGORIES)
        grey = F.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), side * 6)  # [B, 1, 6 side, 6 side]
        grey = F.unfold(grey, 6, stride=6).transpose(1, 2)  # [B, patches, 36]
        return loss + 0.3 * F.mse_loss(patches, grey)

    parameters = [*model.vision_model.parameters(), *heads.parameters()]
    return fit(
        loss_of, parameters, len(images), steps=steps, batch=batch, peak=1.5e-3, seed=seed, title="vision"
    )


def fit(
    loss_of, parameters, n: int, *, steps: int, batch: int, peak: float, seed: int, title: str
) -> list[float]:
    """Minimise `loss_of(indices)` by AdamW, linear warm-up and cosine decay; return each step's loss."""
    rng = np.random.default_rng(seed)
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1, (s + 1) / 100) * (0.02 + 0.49 * (1 + np.cos(np.pi * s / steps)))
    )
    losses, order = [], np.empty(0, int)
    for _ in (bar := tqdm(range(steps), desc=title, mininterval=5)):
        if len(order) < batch:
            order = rng.permutation(n)
        index, order = order[:batch], order[batch:]
        loss = loss_of(np.sort(index))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
    return losses


def pretrain_language(model, processor, *, steps: int, batch: int = 128, seed: int = 0) -> list[float]:
    """Stage 2. Train `model.language_model` in place on text alone; return the loss of each step.

    A passage's facts stand in the places of the query outputs, as the mean of their words' embeddings, so
    that the language model learns to answer from a prefix of vectors. It never sees an image. Once it can,
    noise is added up to `NOISE`, so that it weighs weak evidence: else it would be deaf to all but exact
    facts, and no gradient would tell the Q-Former how to speak to it.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    tokenizer, table = processor.tokenizer, model.language_model.get_input_embeddings()
    slots = model.config.num_query_tokens
    progress = itertools.count()

    def loss_of(_: np.ndarray) -> Tensor:
        passages = [passage(rng) for _ in range(batch)]
        facts = [(row, fact) for row, (told, _, _) in enumerate(passages) for fact in told]
        ids = tokenizer([fact for _, fact in facts], add_special_tokens=False)["input_ids"]
        places = torch.tensor([row * slots + int(rng.integers(slots)) for row, _ in facts])
        offsets = torch.tensor(np.cumsum([0] + [len(i) for i in ids[:-1]]))
        means = F.embedding_bag(torch.tensor(sum(ids, [])), table.weight, offsets, mode="mean")
        prefix = (
            torch.zeros(batch * slots, means.shape[1]).index_add(0, places, means).view(batch, slots, -1)
        )  # [B, Q, D]
        noise = (
            NOISE * min(1.0, max(0.0, next(progress) / steps - 0.35) / 0.3) * rng.uniform(0, 1, (batch, 1, 1))
        )
        prefix = prefix * float(rng.uniform(0.7, 3)) + torch.from_numpy(
            noise.astype(np.float32)
        ) * torch.randn_like(prefix)
        text = encode(processor, [q for _, q, _ in passages], [a for _, _, a in passages])
        words = table(text["input_ids"])
        mask = torch.cat([torch.ones(batch, slots, dtype=torch.long), text["attention_mask"]], 1)
        inputs = {"inputs_embeds": torch.cat([prefix, words], 1), "attention_mask": mask}
        return answer_loss(model, inputs, text["labels"])

    return fit(
        loss_of,
        model.language_model.parameters(),
        batch,
        steps=steps,
        batch=batch,
        peak=2e-3,
        seed=seed,
        title="language",
    )


@torch.no_grad()
def image_features(model, images: np.ndarray, batch: int = 256) -> Tensor:
    """Image embeddings of many images, float16 [n, 1 + patches, D]."""
    parts = [
        encode_images(model, normalise(images[k : k + batch])).half()
        for k in tqdm(range(0, len(images), batch), desc="features")
    ]
    return torch.cat(parts)


def align(
    model,
    processor,
    faces: list[Face],
    images: np.ndarray,
    landmarks: np.ndarray,
    motion: np.ndarray,
    *,
    steps: int,
    each: int = 2,
    batch: int = 32,
    seed: int = 0,
):
    """Stage 3. Train queries, Q-Former and projection on `image_questions`; return each step's loss.

    Beside the answers, the Q-Former learns where to attend: half of the heads of each cross-attention at the
    landmarks that a question names, half at a part of the face that belongs to the query. A throw-away
    linear layer reads all measures from the queries.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    features, landmarks, motion = image_features(model, images), named(landmarks), named(motion)
    values, size = measure(landmarks, motion), images.shape[1]
    spans = to_spans(values)
    values = np.concatenate([values, landmarks.reshape(len(values), -1), motion[..., 0]], 1)
    values = torch.from_numpy(
        ((values - values.mean(0)) / np.maximum(values.std(0), 1e-6)).astype(np.float32)
    )
    summary = nn.Linear(
        model.config.num_query_tokens * model.config.qformer_config.hidden_size, values.shape[1]
    )
    nn.init.normal_(summary.weight, std=0.5 * summary.in_features**-0.5)
    model.language_model.requires_grad_(False)
    near = near_points(landmarks / size, features.shape[1])
    own = [PARTS[k % len(PARTS)] for k in range(model.config.num_query_tokens)]

    def loss_of(index: np.ndarray) -> Tensor:
        asked = [image_questions(faces[k], landmarks[k], spans[k], size, each, rng) for k in index]
        told = [q.answer or "" for one in asked for q in one]
        text = encode(processor, [q.text for one in asked for q in one], told)
        image = torch.arange(len(index)).repeat_interleave(each)
        looks.clear()
        seen = features[torch.from_numpy(index)].float()
        output = query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"], image)
        rows = torch.tensor([bool(answer) for answer in told])
        inputs = language_inputs(model, output[rows], text["input_ids"][rows], text["attention_mask"][rows])
        where = torch.stack(
            [
                near[k, list(q.places)].sum(0) / max(1, len(q.places))
                for k, one in zip(index, asked, strict=True)
                for q in one
            ]
        )
        look = _look_loss(
            looks,
            where.unflatten(0, (len(index), -1)),
            torch.stack([near[index][:, list(part)].mean(1) for part in own], 1),
        )
        told_all = F.smooth_l1_loss(
            summary(output.flatten(1)), values[torch.from_numpy(index)][image], beta=0.5
        )
        return answer_loss(model, inputs, text["labels"][rows]) + 0.3 * look + 3 * told_all

    parameters = [
        model.query_tokens,
        *model.qformer.parameters(),
        *model.language_projection.parameters(),
        *summary.parameters(),
    ]
    with cross_attention_weights(model.qformer) as looks:
        losses = fit(
            loss_of, parameters, len(images), steps=steps, batch=batch, peak=1.5e-3, seed=seed, title="align"
        )
    model.language_model.requires_grad_(True)
    return losses


def near_points(points: np.ndarray, tokens: int) -> Tensor:
    """Points [n, L, 2] in [0, 1] as distributions over class token and patches: [n, L, 1 + patches]."""
    side = round((tokens - 1) ** 0.5)
    centre = (points * side - 0.5).clip(0, side - 1)[..., None]  # [n, L, 2, 1]
    x, y = np.moveaxis(np.exp(-((np.arange(side) - centre) ** 2) / (2 * 0.6**2)), 2, 0)  # each [n, L, side]
    grid = (y / y.sum(2, keepdims=True))[..., None] * (x / x.sum(2, keepdims=True))[..., None, :]
    flat = grid.reshape(*grid.shape[:2], -1).astype(np.float32)
    return torch.from_numpy(np.concatenate([np.zeros_like(flat[..., :1]), flat], 2))


def _look_loss(looks: list[Tensor], where: Tensor, own: Tensor) -> Tensor:
    """Cross entropy of attention: half of the heads to the question's places, half to the query's part.

    Args:
        looks: attention [I, heads, questions * Q, P] of each layer.
        where: targets [I, questions, P] of the mean over queries; zero where a question has no place.
        own: targets [I, Q, P] of each query.
    """
    total = where.new_zeros(())
    for weights in looks:
        asked, part = weights.unflatten(2, (where.shape[1], -1)).chunk(
            2, 1
        )  # each [I, heads / 2, questions, Q, P]
        total = total - (where * (asked.mean((1, 3)) + 1e-6).log()).sum() / where.sum().clamp(min=1)
        total = total - (own[:, None] * (part.mean(1) + 1e-6).log()).sum(3).mean()
    return total / len(looks)


def vocabulary_texts(seed: int = 0, n: int = 6000) -> list[str]:
    """Text to train the tokenizers on: the passages' facts, questions and answers."""
    rng = np.random.default_rng([seed, 1])
    return [text for _ in range(n) for facts, *words in [passage(rng)] for text in (*facts, *words)]


def make_base(folder: str | Path, budget: Budget = DEFAULT, size: Size = TINY) -> None:
    """Make the base in `folder`: float16 weights, processor, card, and `pretraining.json` with the losses.

    The results of the stages stand beside `folder` until the end, so that a killed run resumes after its
    last whole stage.
    """
    folder = Path(folder)
    stages = folder.with_name(f".{folder.name}-stages-{fingerprint(asdict(budget), asdict(size))}")
    languages = train_tokenizers(vocabulary_texts(budget.seed), size.vocabulary)
    size = replace(size, vocabulary=len(languages[0]), qformer_vocabulary=len(languages[1]))
    model = build(size, budget.seed)
    processor = make_processor(*languages, size.image, size.queries)
    faces, images, landmarks, motion = draw_faces(budget.faces, size.image, budget.seed)
    numbers, categories = geometry_targets(faces, landmarks, motion, size.image)
    losses = {
        "vision": _stage(
            stages / "vision.pt",
            model,
            lambda: pretrain_vision(
                model, images, numbers, categories, steps=budget.vision_steps, seed=budget.seed
            ),
        ),
        "language": _stage(
            stages / "language.pt",
            model,
            lambda: pretrain_language(model, processor, steps=budget.language_steps, seed=budget.seed),
        ),
        "align": _stage(
            stages / "align.pt",
            model,
            lambda: align(
                model, processor, faces, images, landmarks, motion, steps=budget.align_steps, seed=budget.seed
            ),
        ),
    }
    model.config.trained_on, model.config.aus = RENDERED_FACES, list(AUS)
    with atomic(folder) as temporary:
        model.half().save_pretrained(temporary)
        processor.save_pretrained(temporary)
        final = {name: float(np.mean(values[-100:])) for name, values in losses.items()}
        summary = {"budget": asdict(budget), "size": asdict(size), "mean_loss_of_last_100_steps": final}
        (temporary / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
        card = (Path(__file__).parent / "card.md").read_text()
        (temporary / "README.md").write_text(
            card.format(parameters=model.num_parameters(), **final, **asdict(budget))
        )
    shutil.rmtree(stages, ignore_errors=True)


def _stage(path: Path, model, train: Callable[[], list[float]]) -> list[float]:
    """Run one stage, or read back its result."""
    if path.exists():
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["model"])
        return kept["losses"]
    losses = train()
    with atomic(path) as temporary:
        torch.save({"model": model.state_dict(), "losses": losses}, temporary)
    return losses


def main() -> None:
    """`python -m tools.base_model.pretrain --output DIR [--faces N ...]`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.base_model.pretrain", description="Rebuild the tiny base model."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    for name, value in asdict(Budget()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    options = vars(parser.parse_args())
    make_base(options.pop("output"), Budget(**options))


if __name__ == "__main__":
    main()
