"""Training steps of the plain path against ours, in turns in one process: samples/s and peak memory.

Plain: transformers' own forward pass on the released code's batches: each question has an image of its own to
read, prepare and pass through the vision encoder, and is padded to the longest question and the longest
answer. Ours: once an image (never for (fz), whose features are cached on disk), keys and values shared,
groups by length. A sample is a question with its answer; a step is reading, forward, backward and the
optimizer.

`python benchmarks/training.py [--images 8] [--questions 8] [--rounds 10]`
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import psutil
import torch
import transformers

from expvqa_lib.data import pairs
from expvqa_lib.data.images import load_image
from expvqa_lib.model import encode
from expvqa_lib.model.load import load_model
from expvqa_lib.pipeline.profiles import BASE
from expvqa_lib.synthfacs import CorpusSizes, make
from expvqa_lib.training import (
    VARIANTS,
    Collator,
    ImagePairs,
    Recipe,
    batch_loss,
    cached_states,
    freeze,
)


def plain_loss(model, processor, items: list[dict]) -> torch.Tensor:
    """transformers' own loss: each question with an image of its own and placeholders of the queries."""
    questions = [(item["image"], *pair) for item in items for pair in item["pairs"]]
    pixels = processor.image_processor([load_image(image) for image, _, _ in questions], return_tensors="pt")[
        "pixel_values"
    ]
    text = encode(processor, [q for _, q, _ in questions], [a for _, _, a in questions])
    answer_lengths = (text["labels"] != -100).sum(1)
    width = int(
        (text["attention_mask"].sum(1) - answer_lengths).max() + answer_lengths.max()
    )  # questions and answers are padded apart
    for name, fill in (
        ("input_ids", processor.tokenizer.pad_token_id),
        ("attention_mask", 0),
        ("labels", -100),
    ):
        text[name] = torch.nn.functional.pad(text[name], (0, width - text[name].shape[1]), value=fill)
    queries = torch.full((len(questions), model.config.num_query_tokens), model.config.image_token_index)
    return model(
        pixel_values=pixels,
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([queries, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(queries), text["attention_mask"]], 1),
        labels=torch.cat([torch.full_like(queries, -100), text["labels"]], 1),
    ).loss


def steps(
    model, processor, table, variant: str, options: argparse.Namespace, folder: Path
) -> tuple[list, dict]:
    """Batches of items, and a function an approach that trains one step on a batch and returns its loss."""
    recipe = Recipe(images=options.images, pairs_per_image=options.questions, augment=False)
    dataset = ImagePairs(table, recipe)
    freeze(model, variant)
    model.train()
    full = [k for k in range(len(dataset)) if len(dataset[k]["pairs"]) == options.questions]
    rng = np.random.default_rng(0)
    items = [
        [dataset[int(k)] for k in rng.choice(full, options.images, replace=False)]
        for _ in range(options.rounds)
    ]
    states = None
    if variant == "exp_vqa_fz":
        images = list({item["image"] for batch in items for item in batch})
        states = cached_states(model, processor, images, folder / "features")
    collate = Collator(processor, recipe, states)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)

    def ours(items: list[dict]) -> torch.Tensor:
        batch = collate(items)
        batch.pop("images")
        return batch_loss(model, batch)

    def plain(items: list[dict]) -> torch.Tensor:
        return plain_loss(model, processor, items)

    def step(method, items: list[dict]) -> float:
        loss = method(items)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return items, {"plain": partial(step, plain), "ours": partial(step, ours)}


def compare(variant: str, options: argparse.Namespace, folder: Path) -> float:
    """Time both approaches on the same batches, in turns; print their medians and return the ratio."""
    model, processor = load_model(BASE, quiet=True)
    items, methods = steps(
        model, processor, datasets.load_from_disk(str(folder / "pairs")), variant, options, folder
    )
    times, losses = {name: [] for name in methods}, {name: [] for name in methods}
    for batch in (items[0], *items):  # the first is for warming up
        for name, step in methods.items():
            began = time.perf_counter()
            losses[name].append(step(batch))
            times[name].append(time.perf_counter() - began)
    median = {name: float(np.median(values[1:])) for name, values in times.items()}
    samples = options.images * options.questions
    for name, seconds in median.items():
        megabytes = memory(variant, name, options, folder) / 1e6
        speed = f"{samples / seconds:.0f} samples/s, {megabytes:.0f} MB more at the peak of a step"
        print(f"{variant} {name}: {speed}, mean loss {np.mean(losses[name]):.4f}")
    return median["plain"] / median["ours"]


def memory(variant: str, name: str, options: argparse.Namespace, folder: Path) -> int:
    """Growth of the resident memory (bytes) in two steps of one approach, in a process of its own."""
    sizes = ["--images", str(options.images), "--questions", str(options.questions), "--rounds", "1"]
    command = [sys.executable, __file__, *sizes, "--grow", variant, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def grow(variant: str, name: str, options: argparse.Namespace, folder: Path) -> int:
    """The child's part of `memory`."""
    model, processor = load_model(BASE, quiet=True)
    items, methods = steps(
        model, processor, datasets.load_from_disk(str(folder / "pairs")), variant, options, folder
    )
    process, done = psutil.Process(), threading.Event()
    resident = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.001):
            resident.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(2):
        methods[name](items[0])
    done.set()
    thread.join()
    return max(resident) - resident[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--questions", type=int, default=8, help="an image")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--grow", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow:
        print(grow(*options.grow[:2], options, Path(options.grow[2])))
        return
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {platform.machine()}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        faces = make(folder / "faces", CorpusSizes((6, 1, 1), (1, 1, 1), (1, 1, 1), videos=1))
        pairs.build_pairs(faces)["train"].save_to_disk(folder / "pairs")
        ratios = {variant: compare(variant, options, folder) for variant in VARIANTS}
    for variant, ratio in ratios.items():
        print(f"ratio {variant}: {ratio:.2f}")


if __name__ == "__main__":
    main()
