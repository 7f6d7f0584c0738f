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
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from expvqa_lib.expvqa import RENDERED_FACES
from expvqa_lib.files import atomic, fingerprint
from expvqa_lib.model import make_processor
from expvqa_lib.synthfacs import AUS
from tools.base_model.build import TINY, Size, build
from tools.base_model.faces import draw_faces, geometry_targets
from tools.base_model.questions import passage
from tools.base_model.stages import align, pretrain_language, pretrain_vision
from tools.base_model.tokenizers import train_tokenizers


@dataclass(frozen=True)
class Budget:
    """Number of faces and steps of the three stages; by default an hour on two cores."""

    faces: int = 40_000
    vision_steps: int = 9000
    language_steps: int = 1200
    align_steps: int = 4000
    seed: int = 1


DEFAULT = Budget()


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
