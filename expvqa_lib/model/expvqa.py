"""The model as a person uses it: ask about a photo, see its action units, see where it looked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlamaConfig,
)

from .. import questions
from ..attention import explain as attention
from ..data.face_crop import crop_face
from ..data.images import load_image
from ..errors import ModelError, SettingsError
from ..pipeline.profiles import PROFILES
from ..synthfacs.face import AUS
from . import load as model
from .answer import generate, score_yes_no
from .load import DRAWN

QUICK = Path(__file__).parents[1] / "assets" / "quick"

TINY = "This is the quick profile's tiny model: trained on drawn faces, so what it says of a photograph is an experiment, not a finding."

UNTAUGHT = (
    "InstructBLIP has seen photographs, but was never taught action units: its answers are guesses. "
    "`expvqa.load` takes the folder of an Exp-VQA that was converted or fine-tuned."
)

BIG = PROFILES["paper"].base
SPARE = 2 * 10**9
"""Bytes on a GPU beside the weights of `BIG`: what it computes with."""


class ExpVQA:
    """A fine-tuned InstructBLIP and its processor. Get one from `load`."""

    def __init__(
        self,
        model: InstructBlipForConditionalGeneration,
        processor: InstructBlipProcessor,
        notice: str | None = None,
    ) -> None:
        self.model, self.processor, self.notice = model.eval(), processor, notice

    def ask(self, images, question: str, *, samples: int = 1, crop: bool = True, seed: int = 0):
        """Answer a question about one image or a list of images.

        Args:
            images: a path, PIL image, array or file object, or a list of such.
            question: any text; the wordings that the model was trained on are in `expvqa_lib.questions`.
            samples: more than 1 gives so many answers by nucleus sampling.
            crop: find the face and cut it out first.
            seed: of the sampling.

        Returns:
            The answer; a list of answers where `samples` > 1; for a list of images a table with columns image, question, answer.

        Raises:
            SettingsError: the question is empty, or `samples` is below 1.
            ImageError: an image is missing or unreadable.
        """
        if not question.strip():
            raise SettingsError("the question is empty; ask something, for instance: " + questions.ask_q1())
        if samples < 1:
            raise SettingsError(f"samples is {samples}; expected 1 or more")
        many = _is_list(images)
        pictures = [self._look(i, crop) for i in (images if many else [images])]
        answers = generate(
            self.model, self.processor, pictures, [question] * len(pictures), samples=samples, seed=seed
        )
        if not many:
            return answers[0] if samples > 1 else answers[0][0]
        rows = [(_name(i), question, a) for i, told in zip(images, answers, strict=True) for a in told]
        return pd.DataFrame(rows, columns=["image", "question", "answer"])

    def aus(self, images, aus: Sequence[int] = AUS, *, crop: bool = True) -> pd.Series | pd.DataFrame:
        """Probability of each AU, the mean over the wordings of Q3: a row (Series) for one image, a table for a list; in [0, 1]."""
        many = _is_list(images)
        pictures = [self._look(i, crop) for i in (images if many else [images])]
        table = score_yes_no(self.model, self.processor, pictures, aus, wordings=range(len(questions.Q3)))
        table.index = [_name(i) for i in (images if many else [images])]
        return table if many else table.iloc[0]

    def explain(
        self,
        image,
        au: int | None = None,
        *,
        question: str | None = None,
        method: str = attention.METHODS[0],
        crop: bool = True,
    ) -> attention.Explanation:
        """Where the model looked for a yes to Q3 about an AU (`attention.explain_au`), or for its answer's first word (`explain`).

        `method` is one of `attention.METHODS`.
        """
        if au is not None:
            return attention.explain_au(
                self.model, self.processor, self._look(image, crop), au, method=method
            )
        if not (question or "").strip():
            raise SettingsError("explain needs an AU number or a question")
        return attention.explain(self.model, self.processor, self._look(image, crop), question, method=method)

    def save(self, folder: str | Path) -> None:
        """Write the model and its processor to a folder that `load` and transformers read."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    @staticmethod
    def _look(image, crop: bool) -> Image.Image:
        if not crop:
            return load_image(image)
        found = crop_face(image)
        if found.notice:
            warnings.warn(f"{_name(image)}: {found.notice}", stacklevel=3)
        return found.image


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    bits: int | None = None,
    quiet: bool = False,
) -> ExpVQA:
    """Load a model: nothing for the quick profile's tiny Exp-VQA, a folder, or a name on the Hugging Face hub. See `model.load`.

    Raises:
        ModelError: there is no InstructBLIP model, it cannot be read, it does not fit in memory, or an extra is missing.
        SettingsError: the device, dtype or bits are unknown.
    """
    found = model.load(
        QUICK if source is None else source,
        device=device,
        dtype=dtype,
        bits=bits,
        quiet=quiet or source is None,
    )
    return ExpVQA(*found, TINY if getattr(found[0].config, "trained_on", None) == DRAWN else None)


def big_options() -> dict:
    """Options of `load` with which the CUDA GPU that is here holds `BIG`: whole where it fits, else with its language model in 4 bits.

    Raises:
        ModelError: there is no CUDA GPU, or too little of its memory is free.
    """
    needed = _big_needs()
    if not torch.cuda.is_available():
        raise ModelError(f"{BIG} needs a CUDA GPU with {needed[4] / 1e9:.0f} GB free, and there is none")
    dtype = (
        "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    )  # a T4 (7.5) only imitates bfloat16
    free = torch.cuda.mem_get_info()[0]
    for bits, bytes_needed in needed.items():
        if bytes_needed <= free:
            return {"source": BIG, "device": "cuda", "dtype": dtype, "bits": bits}
    name = torch.cuda.get_device_name()
    raise ModelError(
        f"{BIG} needs {needed[4] / 1e9:.0f} GB on the GPU, and the {name} has {free / 1e9:.0f} GB free"
    )


def offer() -> str:
    """Say in Markdown which model suits this machine: the 7B one where a CUDA GPU can hold it, and in how many bits."""
    try:
        options = big_options()
    except ModelError as error:
        return f"The tiny model answers here: {error}. In Colab choose *Runtime*, *Change runtime type*, *T4 GPU* and start again."
    how = f"its language model in {options['bits']} bits" if options["bits"] else f"in {options['dtype']}"
    return (
        f"The {torch.cuda.get_device_name()} can hold InstructBLIP-Vicuna-7B, {how}: {_big_needs()[options['bits']] / 1e9:.0f} GB of its "
        f"{torch.cuda.mem_get_info()[0] / 1e9:.0f} GB free. Set `big = True` below to ask it instead of the tiny model; its files are "
        "downloaded first, and are larger than that."
    )


def _big_needs() -> dict[int | None, int]:
    """Bytes that `BIG` needs on a GPU, by the bits of its language model (None: half precision); from its shapes, nothing is read."""
    vision, qformer, words = (
        InstructBlipConfig().vision_config,
        InstructBlipConfig().qformer_config,
        LlamaConfig(vocab_size=32001),
    )
    config = InstructBlipConfig(
        vision_config=vision.to_dict(), qformer_config=qformer.to_dict(), text_config=words.to_dict()
    )
    with torch.device("meta"):
        skeleton = InstructBlipForConditionalGeneration(config)
    return {bits: model.memory_needed(skeleton, torch.float16, bits=bits) + SPARE for bits in (None, 4)}


def _is_list(images) -> bool:
    return isinstance(images, list | tuple | pd.Series)


def _name(image) -> str:
    return str(image) if isinstance(image, str | Path) else type(image).__name__
