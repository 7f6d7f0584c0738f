"""The three stages: vision encoder, language model, and the Q-Former between them."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from expvqa_lib.model import encode
from expvqa_lib.model.forward import (
    answer_loss,
    cross_attention_weights,
    encode_images,
    language_inputs,
    query_image,
)
from expvqa_lib.synthfacs import Face
from tools.base_model.faces import CATEGORIES, augment, normalise
from tools.base_model.places import PARTS, measure, named, to_spans
from tools.base_model.questions import image_questions, passage

NOISE = 0.25  # largest deviation of the noise on an element of a fact; a word's embedding has norm 1 or so


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
        output = query_image(model, seen, text, image)
        rows = torch.tensor([bool(answer) for answer in told])
        inputs = language_inputs(model, output[rows], {name: value[rows] for name, value in text.items()})
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
