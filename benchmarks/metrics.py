"""Bootstrap of the per-AU table: weighted resamples of `metrics.au_table` against a loop over scikit-learn.

Both in turns on the same labels. The loop calls scikit-learn once a resample and AU; it is timed on a few
resamples, and its time multiplied. The last line, `ratio: X`, is how many times faster ours is.

`python benchmarks/metrics.py [--faces 50000] [--aus 12] [--resamples 1000] [--rounds 3]`
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from expvqa_lib.evaluation.metrics import au_table
from expvqa_lib.facs import BP4D_AUS

FEW = 2  # resamples of the loop


def loop(labels: pd.DataFrame, scores: pd.DataFrame, resamples: int) -> None:
    """The five metrics of every AU by scikit-learn, on rows drawn with replacement."""
    rng = np.random.default_rng(0)
    for _ in range(resamples):
        rows = rng.integers(0, len(labels), len(labels))
        for name in labels:
            y, p = labels[name].to_numpy()[rows], scores[name].to_numpy()[rows]
            for metric in (f1_score, precision_score, recall_score, balanced_accuracy_score):
                metric(y, p >= 0.5)
            roc_auc_score(y, p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--aus", type=int, default=12, choices=range(1, 13))
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    names = [f"AU{au}" for au in BP4D_AUS[: options.aus]]
    labels = pd.DataFrame(rng.random((options.faces, options.aus)) < 0.3, columns=names).astype(int)
    scores = (0.3 * labels + 0.7 * rng.random(labels.shape)).astype(float)
    times: dict[str, list[float]] = {"loop": [], "ours": []}
    for _ in range(options.rounds):
        began = time.perf_counter()
        loop(labels, scores, FEW)
        times["loop"].append((time.perf_counter() - began) * options.resamples / FEW)
        began = time.perf_counter()
        au_table(labels, scores, model="m", dataset="d", split="test", resamples=options.resamples)
        times["ours"].append(time.perf_counter() - began)
    median = {name: float(np.median(values)) for name, values in times.items()}
    size = f"{options.faces} faces, {options.aus} AUs, {options.resamples} resamples"
    print(f"{size}: ours {median['ours']:.1f} s, loop {median['loop']:.0f} s")
    print(f"ratio: {median['loop'] / median['ours']:.0f}")


if __name__ == "__main__":
    main()
