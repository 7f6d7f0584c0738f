"""Many AUs of many images: `model.score_yes_no` against the reference's way, in turns on the same images.

The reference asks one question at a time of one image: vision encoder, Q-Former and five beams for each,
however often the image came before. Here its questions are put into batches of `--batch`. Ours looks once at
an image, passes all AUs through the Q-Former and the language model together and reads one position's logits.
"shared" is the reference's way, but beams read the prompt together (`model.generate`). A sample is one AU of
one image. How time grows is printed for fewer images and AUs. The last line, `ratio: X`, is the reference's
time over ours.

`python benchmarks/au_scoring.py [--images 32] [--aus 12] [--batch 128] [--rounds 5]`
"""

import argparse
import platform
import time

import numpy as np
import torch
import transformers

from expvqa_lib.expvqa import QUICK
from expvqa_lib.facs import BP4D_AUS
from expvqa_lib.model import answer, generate, score_yes_no
from expvqa_lib.model.load import load_model
from expvqa_lib.questions import ask_q3, read_yes_no
from expvqa_lib.synthfacs import Face, random_expression, random_identity, random_scene, render

READ_ONCE = answer._read_once


def reference(model, processor, images: list, aus: list[int], batch: int) -> np.ndarray:
    """Yes as true, by five beams as in the released code (length penalty 0, at most 10 tokens)."""
    questions = [(image, ask_q3(au)) for image in images for au in aus]
    how = {"num_beams": 5, "length_penalty": 0.0, "max_new_tokens": 9, "batch": 5 * batch}
    answers = [
        reply
        for k in range(0, len(questions), batch)
        for (reply,) in generate(
            model, processor, *map(list, zip(*questions[k : k + batch], strict=True)), **how
        )
    ]
    return np.array([read_yes_no(reply) is True for reply in answers]).reshape(len(images), len(aus))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--aus", type=int, default=12, choices=range(1, 13))
    parser.add_argument("--batch", type=int, default=128, help="questions a pass of the reference's way")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {platform.machine()}, {torch.get_num_threads()} threads")
    rng = np.random.default_rng(0)
    expressions = [random_expression(rng)[1:] for _ in range(options.images)]
    faces = [
        render(Face(random_identity(rng), random_scene(rng), *expression), 96).image
        for expression in expressions
    ]
    model, processor = load_model(QUICK, quiet=True)
    sizes = [
        (options.images // 4, options.aus),
        (options.images, max(1, options.aus // 4)),
        (options.images, options.aus),
    ]
    for images, count in sizes:
        aus, times = list(BP4D_AUS[:count]), {"reference": [], "shared": [], "ours": []}
        for _ in range(options.rounds + 1):  # the first is for warming up
            for way, read in (("reference", lambda model, inputs, options: inputs), ("shared", READ_ONCE)):
                answer._read_once, began = read, time.perf_counter()
                answers = reference(model, processor, faces[:images], aus, options.batch)
                times[way].append(time.perf_counter() - began)
            began = time.perf_counter()
            scores = score_yes_no(model, processor, faces[:images], aus).to_numpy()
            times["ours"].append(time.perf_counter() - began)
        median = {name: float(np.median(values[1:])) for name, values in times.items()}
        speed = ", ".join(f"{name} {images * count / seconds:.0f} AUs/s" for name, seconds in median.items())
        agree = (answers == (scores >= 0.5)).mean()
        ratio, shared = (median[way] / median["ours"] for way in ("reference", "shared"))
        ratios = f"ratio {ratio:.1f} (shared: {shared:.1f})"
        print(f"{images} images, {count} AUs: {speed}, {ratios}, the same decision for {agree:.1%}")
    print(f"ratio: {ratio:.1f}")


if __name__ == "__main__":
    main()
