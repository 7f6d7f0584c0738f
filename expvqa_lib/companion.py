"""The model as a person uses it: ask about a photo, see its action units, see where it looked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from . import attention, model, questions
from .answering import generate, score_yes_no
from .corpora.faces import AUS
from .errors import SettingsError
from .framing import crop_face
from .model import DRAWN
from .photos import load_image

QUICK = Path(__file__).parent / "data" / "quick"

TINY = "This is the quick profile's tiny model: trained on drawn faces, so what it says of a photograph is an experiment, not a finding."


class ExpVQA:
    """A fine-tuned InstructBLIP and its processor. Get one from `load`."""

    def __init__(self, model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, notice: str | None = None) -> None:
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
        answers = generate(self.model, self.processor, pictures, [question] * len(pictures), samples=samples, seed=seed)
        if not many:
            return answers[0] if samples > 1 else answers[0][0]
        rows = [(_name(i), question, a) for i, told in zip(images, answers, strict=True) for a in told]
        return pd.DataFrame(rows, columns=["image", "question", "answer"])

    def aus(self, images, aus: Sequence[int] = AUS, *, crop: bool = True) -> pd.Series | pd.DataFrame:
        """Probability of each AU: a row (Series) for one image, a table for a list of images; values in [0, 1]."""
        many = _is_list(images)
        pictures = [self._look(i, crop) for i in (images if many else [images])]
        table = score_yes_no(self.model, self.processor, pictures, aus)
        table.index = [_name(i) for i in (images if many else [images])]
        return table if many else table.iloc[0]

    def explain(self, image, au: int | None = None, *, question: str | None = None, crop: bool = True) -> attention.Explanation:
        """Where the model looked for its answer to a question (by `au`: to Q3 of that AU). See `attention.explain`."""
        asked = question if au is None else questions.ask_q3(au)
        if not (asked or "").strip():
            raise SettingsError("explain needs an AU number or a question")
        return attention.explain(self.model, self.processor, self._look(image, crop), asked)

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
    found = model.load(QUICK if source is None else source, device=device, dtype=dtype, bits=bits, quiet=quiet or source is None)
    return ExpVQA(*found, TINY if getattr(found[0].config, "trained_on", None) == DRAWN else None)


def _is_list(images) -> bool:
    return isinstance(images, list | tuple | pd.Series)


def _name(image) -> str:
    return str(image) if isinstance(image, str | Path) else type(image).__name__
