"""Face table and pairs of many images with generated labels (12 AUs) and no pixels: time and memory by stage.

Each size runs in a process of its own. Memory is the peak of a stage: what the process holds itself and,
behind the plus, what the system keeps mapped of its files, which it takes back when needed.

`python benchmarks/scale.py [--images 23000 93000 372000]`
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import psutil

from expvqa_lib.data import pairs
from expvqa_lib.data import table as face_table
from expvqa_lib.facs import BP4D_AUS
from expvqa_lib.training.dataset import ImagePairs
from expvqa_lib.training.recipe import Recipe

FRAMES = 1000  # a subject
RATES = np.linspace(0.05, 0.6, len(BP4D_AUS))  # of the AUs, about as in BP4D


class Stages:
    """Seconds and peak memory by stage."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        process, done, own, mapped = psutil.Process(), threading.Event(), [0], [0]

        def watch() -> None:
            while not done.wait(0.02):
                memory = process.memory_info()
                own.append(memory.rss - memory.shared)
                mapped.append(memory.shared)

        thread = threading.Thread(target=watch)
        thread.start()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
            self.results[name] = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        finally:
            done.set()
            thread.join()
        self.results[name] |= {"own": max(own) / 1e6, "mapped": max(mapped) / 1e6}


def generated_table(images: int) -> pd.DataFrame:
    """A face table of that many rows: subjects of `FRAMES` frames, a tenth of them for the test."""
    rng = np.random.default_rng(0)
    subject, frame = np.divmod(np.arange(images), FRAMES)
    split = np.array(["validation", "test", *["train"] * 8])[subject % 10]
    names = [f"F{s:04d}" for s in range(subject.max() + 1)]
    columns = {
        "image": [f"{names[s]}/T{f // 125 + 1}/{f:06d}.jpg" for s, f in zip(subject, frame, strict=True)],
        "dataset": "generated",
        "subject": np.array(names)[subject],
        "frame": frame.astype(str),
        "split": split,
    }
    present = rng.random((images, len(BP4D_AUS))) < RATES
    return pd.DataFrame(columns | {f"AU{n}": present[:, k].astype("int8") for k, n in enumerate(BP4D_AUS)})


def run(images: int, folder: Path) -> dict:
    """All stages at one size."""
    datasets.disable_progress_bars()
    stage = Stages()
    with stage("make and write the table"):
        face_table.write_table(generated_table(images), folder / "faces.parquet")
    with stage("read the table"):
        table = face_table.read_table(folder / "faces.parquet")
    with stage("build the pairs"):
        (folder / "arrow").mkdir()
        built = pairs.build_pairs(table, folder=folder / "arrow")
    with stage("save the pairs"):
        pairs.save_pairs(built, folder / "pairs")
    with stage("load and shuffle them"):
        loaded = datasets.load_from_disk(str(folder / "pairs"))
        shuffled = loaded["train"].shuffle(seed=0)
    with stage("iterate over all, in order"):
        count = sum(len(batch["image"]) for split in loaded.values() for batch in split.iter(10_000))
    with stage("iterate over 100 000, shuffled"):
        some = sum(
            len(batch["image"]) for batch in shuffled.select(range(min(100_000, len(shuffled)))).iter(1000)
        )
    with stage("prepare them for training"):
        chosen = ImagePairs(loaded["train"], Recipe())
    with stage("an epoch of training items"):
        for k in np.random.default_rng(0).permutation(len(chosen)):
            chosen[k]
    assert some and count == sum(map(len, built.values()))
    return {"images": images, "pairs": count, "stages": stage.results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[23_000, 93_000, 372_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    results = []
    for images in options.images:
        with tempfile.TemporaryDirectory() as place:
            if options.one:
                print(json.dumps(run(images, Path(place))))
                return
            command = [sys.executable, __file__, "--one", "--images", str(images)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{images} images, {results[-1]['pairs']} pairs")
        for name, stage in results[-1]["stages"].items():
            memory = f"{stage['own']:5.0f} + {stage['mapped']:4.0f} MB"
            print(
                f"  {name:31} {stage['seconds']:6.1f} s ({stage['cpu']:.1f} s of processor time), {memory}",
                flush=True,
            )
    for before, after in zip(results, results[1:], strict=False):
        peak, cpu = ([f(one["stages"].values()) for one in (before, after)] for f in (_peak, _cpu))
        time_grown = f"{cpu[1] / cpu[0]:.1f} times the processor time ({cpu[1]:.0f} s)"
        memory_grown = f"{peak[1] / peak[0]:.1f} times the memory ({peak[1]:.0f} MB)"
        print(f"{after['images'] / before['images']:.1f} times the images: {time_grown}, {memory_grown}")


def _peak(stages) -> float:
    return max(stage["own"] for stage in stages)


def _cpu(stages) -> float:
    return sum(stage["cpu"] for stage in stages)


if __name__ == "__main__":
    main()
