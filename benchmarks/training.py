"""Training steps of the plain path against ours, in turns in one process: samples/s and peak memory of both variants.

Plain: transformers' own forward pass, one pass of the vision encoder a question, padded to the longest. Ours: one pass an image (none for
(fz), whose features are kept on disk), keys and values shared, two groups by length. A sample is a question with its answer.

`python benchmarks/training.py [--images 8] [--questions 8] [--rounds 10]`
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import transformers
from accelerate import Accelerator

from expvqa_lib import pairs, training
from expvqa_lib.batches import Collator, ImagePairs
from expvqa_lib.corpora.synthetic import CorpusSizes, make
from expvqa_lib.model import load
from expvqa_lib.photos import load_image
from expvqa_lib.recipe import VARIANTS, Recipe
from expvqa_lib.text import encode
from expvqa_lib.workspace import BASE


def plain_loss(model, processor, items: list[dict]) -> torch.Tensor:
    """transformers' own loss, with an image and the placeholders of the queries for each question."""
    pictures = [load_image(item["image"]) for item in items]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    asked = [(k, *pair) for k, item in enumerate(items) for pair in item["pairs"]]
    text = encode(processor, [q for _, q, _ in asked], [a for _, _, a in asked])
    queries = torch.full((len(asked), model.config.num_query_tokens), model.config.image_token_index)
    return model(
        pixel_values=pixels[[k for k, _, _ in asked]],
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([queries, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(queries), text["attention_mask"]], 1),
        labels=torch.cat([torch.full_like(queries, -100), text["labels"]], 1),
    ).loss


class PeakMemory:
    """Largest growth of the process's resident memory (bytes) while the block runs."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.done, process = 0, threading.Event(), psutil.Process()
        before = process.memory_info().rss

        def watch() -> None:
            while not self.done.wait(0.002):
                self.peak = max(self.peak, process.memory_info().rss - before)

        self.thread = threading.Thread(target=watch)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        self.thread.join()


def compare(model, processor, table, variant: str, options: argparse.Namespace, folder: Path) -> float:
    """Time steps of the plain path and of ours on the same batches, in turns; print both and return the ratio of their medians."""
    recipe = Recipe(images=options.images, questions=options.questions, augment=False)
    dataset = ImagePairs(table, recipe)
    training.freeze(model, variant)
    model.train()
    full = [k for k in range(len(dataset)) if len(dataset[k]["pairs"]) == options.questions]
    rng = np.random.default_rng(0)
    items = [[dataset[int(k)] for k in rng.choice(full, options.images, replace=False)] for _ in range(options.rounds)]
    states = None
    if variant == "exp_vqa_fz":
        images = list({item["image"] for batch in items for item in batch})
        states = training._kept_states(model, processor, images, folder / variant, Accelerator())
    collate = Collator(processor, recipe, states)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def ours(items: list[dict]) -> torch.Tensor:
        batch = collate(items)
        batch.pop("images")
        return training.batch_loss(model, batch)

    def plain(items: list[dict]) -> torch.Tensor:
        return plain_loss(model, processor, items)

    def step(method, items: list[dict]) -> float:
        loss = method(items)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    methods = {"plain": plain, "ours": ours}
    times, losses, memory = {name: [] for name in methods}, {name: [] for name in methods}, dict.fromkeys(methods, 0)
    for name, method in methods.items():
        step(method, items[0])
        with PeakMemory() as watch:
            step(method, items[0])
        memory[name] = watch.peak
    for batch in items:
        for name, method in methods.items():
            began = time.perf_counter()
            losses[name].append(step(method, batch))
            times[name].append(time.perf_counter() - began)
    samples = options.images * options.questions
    for name in methods:
        median = float(np.median(times[name]))
        print(
            f"{variant} {name}: {samples / median:.1f} samples/s, {memory[name] / 1e6:.0f} MB more memory in a step, "
            f"mean loss {np.mean(losses[name]):.4f}"
        )
    return float(np.median(times["plain"]) / np.median(times["ours"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--questions", type=int, default=8, help="an image")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sizes = CorpusSizes(lab_train=6, lab_validation=1, lab_test=1, videos=1, wild_train=1, wild_validation=1, wild_test=1)
        sizes = CorpusSizes(**vars(sizes) | {"emotion_train": 1, "emotion_validation": 1, "emotion_test": 1})
        table = pairs.build(make(folder / "faces", sizes))["train"]
        ratios = {}
        for variant in VARIANTS:
            model, processor = load(BASE, quiet=True)
            ratios[variant] = compare(model, processor, table, variant, options, folder)
    for variant, ratio in ratios.items():
        print(f"ratio {variant}: {ratio:.2f}")


if __name__ == "__main__":
    main()
