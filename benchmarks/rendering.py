"""How fast SynthFACS draws on one core: faces per second by image side. `python benchmarks/rendering.py`"""

import statistics
import time

import numpy as np

from expvqa_lib.synthfacs import Face, random_expression, random_identity, random_scene, render


def main(sizes: tuple[int, ...] = (64, 96, 112, 224), faces: int = 200, rounds: int = 5) -> None:
    """Interleave the sizes, `rounds` times; print the median rate of each."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(faces):
        _, aus, lateral = random_expression(rng, mixed=0.5)
        drawn.append(Face(random_identity(rng), random_scene(rng), aus, lateral))
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            start = time.process_time()
            for face in drawn:
                render(face, size)
            rates[size].append(faces / (time.process_time() - start))
    for size, values in rates.items():
        print(f"{size} px: {statistics.median(values):.0f} faces/s of one core's time")


if __name__ == "__main__":
    main()
