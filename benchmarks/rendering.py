"""How long a rendered face takes on one core, with its landmarks. `python benchmarks/rendering.py`

At 96 px as in the corpora, at 288 px as in the explorer; of a new person, whose skin is painted first, and of
the same person whose action units change, as by a slider. In turns, in one process.
"""

import statistics
import time
from itertools import product

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from expvqa_lib.synthfacs import (
    Face,
    random_expression,
    random_identity,
    random_scene,
    render,
)


def main(sizes: tuple[int, ...] = (96, 288), faces: int = 60, rounds: int = 5) -> None:
    """Interleave sizes and ways, `rounds` times; print median rates and the ratios to the first."""
    cv2.setNumThreads(1)
    threadpool_limits(1)
    rng = np.random.default_rng(0)
    expressions = [random_expression(rng, mixed=0.5)[1:] for _ in range(faces)]
    people = [random_identity(rng) for _ in range(faces)]
    ways = {
        "a new person a face": [
            Face(who, random_scene(rng), *acts) for who, acts in zip(people, expressions, strict=True)
        ],
        "one person": [Face(people[0], random_scene(rng, 0.5), *acts) for acts in expressions],
    }
    seconds: dict[tuple[int, str], list[float]] = {pair: [] for pair in product(sizes, ways)}
    for size, way in seconds:
        render(ways[way][0], size)  # compiled, and its canvas made
    for _ in range(rounds):
        for size, way in seconds:
            start = time.process_time()
            for face in ways[way]:
                render(face, size)
            seconds[size, way].append((time.process_time() - start) / faces)
    first, *_ = (statistics.median(values) for values in seconds.values())
    for (size, way), values in seconds.items():
        took = statistics.median(values)
        print(f"{size} px, {way}: {1000 * took:.1f} ms, {1 / took:.0f} faces/s, ratio {took / first:.2f}")


if __name__ == "__main__":
    main()
