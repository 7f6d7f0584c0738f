"""The model as a person uses it: ask about a photo, score its action units, see where the model looked."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from . import questions
from .attention import DEFAULT_METHOD, FAST_METHOD, relevance
from .data import crop_face, load_image
from .errors import ModelError, SettingsError
from .evaluation import score
from .facs import ACTION_UNITS
from .model import generate, load_model, score_yes_no
from .model.load import LARGE
from .plots import attention_gallery

QUICK = Path(__file__).parent / "assets" / "quick"
"""The tiny Exp-VQA that the quick profile trains."""

INSTRUCTBLIP = "Salesforce/instructblip-vicuna-7b"

RENDERED_FACES = "rendered faces"
"""`config.trained_on` of the tiny models."""

NOTICES = {
    RENDERED_FACES: "This is the quick profile's tiny model: it was trained on rendered faces. Of "
    "photographs it knows smiles and open mouths at best (docs/photos.md has the figures).",
    INSTRUCTBLIP: "InstructBLIP was trained on photographs, but never on action units: its answers are "
    "guesses. `expvqa.load` also takes the folder of a converted or fine-tuned Exp-VQA.",
}
"""What a user must know before trusting an answer, by `config.trained_on` or by hub name."""


@dataclass(frozen=True)
class Explanation:
    """Where the model looked: image, question, first word of the answer, P(yes), a map [h, h] (maximum 1) and
    the method that made it."""

    image: Image.Image
    question: str
    answer: str
    p_yes: float
    heat: np.ndarray
    method: str

    def plot(self) -> Figure:
        """Draw the map over the face."""
        p_yes = f" (P(yes) = {self.p_yes:.2f})" if self.answer in (questions.YES, questions.NO) else ""
        answer = {"title": self.question, "answer": self.answer + p_yes}
        return attention_gallery([{"image": self.image, "heat": self.heat, **answer}])


class ExpVQA:
    """A fine-tuned InstructBLIP with its processor; `load` returns one.

    An image is a path, a PIL image, an array, bytes or a file object; `bgr` says that arrays are OpenCV's,
    blue first. `crop` finds the face and cuts it out first.
    """

    def __init__(
        self,
        model: InstructBlipForConditionalGeneration,
        processor: InstructBlipProcessor,
        notice: str | None = None,
    ) -> None:
        self.model, self.processor, self.notice = model.eval(), processor, notice
        self.name = Path(model.name_or_path).name or type(model).__name__

    def __repr__(self) -> str:
        config, pixels = self.model.config, self.model.config.vision_config.image_size
        base = f", fine-tuned from {config.base_model}" if hasattr(config, "base_model") else ""
        return "\n".join(
            [
                f"Exp-VQA {self.name}{base}",
                f"InstructBLIP of {self.model.num_parameters() / 1e6:,.1f} million parameters, "
                f"{self.model.dtype} on {self.model.device}; pictures of {pixels} x {pixels} pixels",
                f"action units: {', '.join(map(str, self._aus(None)))}",
                *([self.notice] if self.notice else []),
            ]
        )

    def ask(
        self, images, question: str, *, samples: int = 1, crop: bool = True, bgr: bool = False, seed: int = 0
    ):
        """Answer a question about one image or a list of images.

        Args:
            question: any text; `expvqa_lib.questions` has the wordings that the model was trained on.
            samples: draw that many answers by nucleus sampling, from `seed`.

        Returns:
            The answer; a list of answers where `samples` > 1; for a list of images a table with columns
            image, question, answer, notice (what one should know of the crop; missing: nothing).

        Raises:
            SettingsError: the question is empty.
            ImageError: an image is missing or unreadable.
        """
        if not question.strip():
            raise SettingsError("the question is empty; ask something, for instance: " + questions.ask_q1())
        faces, names, notices, is_list = _faces(images, crop, bgr)
        answers = generate(
            self.model, self.processor, faces, [question] * len(faces), samples=samples, seed=seed
        )
        if not is_list:
            return answers[0] if samples > 1 else answers[0][0]
        table = pd.DataFrame({"image": names, "question": question, "answer": answers, "notice": notices})
        return table.explode("answer", ignore_index=True)

    def aus(
        self, images, aus: Sequence[int] | None = None, *, crop: bool = True, bgr: bool = False
    ) -> pd.Series | pd.DataFrame:
        """Probability of each AU, the mean over Q3's wordings: a row for one image, a table for a list.

        By default it is asked about the AUs in its configuration (`config.aus`), or else all of `facs`.
        """
        aus = self._aus(aus)
        faces, names, _, is_list = _faces(images, crop, bgr)
        table = score_yes_no(self.model, self.processor, faces, aus, wordings=range(len(questions.Q3)))
        return table.set_axis(names) if is_list else table.set_axis(names).iloc[0]

    @property
    def default_method(self) -> str:
        """The most faithful method; for a billion parameters or more, the most faithful of two passes."""
        return FAST_METHOD if self.model.num_parameters() >= LARGE else DEFAULT_METHOD

    def _aus(self, aus: Sequence[int] | None) -> list[int]:
        return list(aus or getattr(self.model.config, "aus", None) or ACTION_UNITS)

    def score(self, paths, aus: Sequence[int] | None = None, **options) -> pd.DataFrame:
        """Score every face of pictures, folders and videos: a row a face, see `evaluation.score`."""
        paths = [paths] if isinstance(paths, str | Path) else paths
        return score(self.model, self.processor, paths, self._aus(aus), **options)

    def explain(
        self,
        image,
        au: int | None = None,
        *,
        question: str | None = None,
        method: str | None = None,
        crop: bool = True,
        bgr: bool = False,
    ) -> Explanation:
        """Map where the model looked for a yes to Q3 about an AU, or for the first word of an answer.

        With an AU, `p_yes` is that of `aus`; `method` is one of `attention.METHODS`.
        """
        if au is None and not (question or "").strip():
            raise SettingsError("explain needs an AU number or a question")
        method = method or self.default_method
        (face,), *_ = _faces([image], crop, bgr)
        text, targets = (question, None) if au is None else (questions.ask_q3(au), [questions.YES])
        (heat,), (p_yes,), (answer,) = relevance(
            self.model, self.processor, [face], [text], targets=targets, method=method
        )
        if au is not None:
            p_yes = self.aus(face, [au], crop=False).iat[0]
            answer = questions.YES if p_yes >= 0.5 else questions.NO
        return Explanation(face, text, answer, float(p_yes), heat, method)


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    bits: int | None = None,
    quiet: bool = False,
) -> ExpVQA:
    """Load a folder or a name on the Hugging Face hub, or without `source` the quick profile's tiny Exp-VQA.

    The options are those of `model.load_model`.

    Raises:
        ModelError: there is no InstructBLIP model, it cannot be read, it does not fit in memory, or an extra
            is missing.
        SettingsError: the device, dtype or bits are unknown.
    """
    model, processor = load_model(
        source or QUICK, device=device, dtype=dtype, bits=bits, quiet=quiet or source is None
    )
    return ExpVQA(model, processor, NOTICES.get(getattr(model.config, "trained_on", str(source))))


def options_for_gpu() -> dict:
    """Options of `load` with which InstructBLIP-Vicuna-7B fits the free memory of this machine's CUDA GPU.

    Raises:
        ModelError: there is no CUDA GPU, or too little of its memory is free.
    """
    free = torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else 0
    if free < 8:  # GB: the weights with the language model in 4 bits, and 2 GB to compute with
        raise ModelError(f"{INSTRUCTBLIP} needs a CUDA GPU with 8 GB free; {free:.0f} GB are free here")
    # a T4 (7.5) only imitates bfloat16
    dtype = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return {"source": INSTRUCTBLIP, "device": "cuda", "dtype": dtype, "bits": None if free >= 18 else 4}


def hardware_note() -> str:
    """Say in Markdown whether this machine can hold the 7B model; if not, why."""
    try:
        bits = options_for_gpu()["bits"]
    except ModelError as error:
        return (
            f"The tiny model answers here: {error}. In Colab choose *Runtime*, *Change runtime type*, *T4 "
            "GPU* and start again."
        )
    precision = f"with its language model in {bits} bits" if bits else "in half precision"
    return (
        f"The {torch.cuda.get_device_name()} can hold InstructBLIP-Vicuna-7B {precision}. Set `big = True` "
        "below to ask it instead of the tiny model; about 32 GB of files are downloaded first."
    )


def _faces(images, crop: bool, bgr: bool) -> tuple[Sequence[Image.Image], list[str], list[str | None], bool]:
    """Faces, names and notices of one image or of a list of images, and whether it is a list."""
    is_list = isinstance(images, list | tuple | pd.Series)
    images = list(images) if is_list else [images]
    names = [str(image) if isinstance(image, str | Path) else type(image).__name__ for image in images]
    faces = [crop_face(x, bgr=bgr) if crop else (load_image(x, bgr=bgr), None) for x in images]
    for name, (_, notice) in zip(names, faces, strict=True):
        if notice:
            warnings.warn(f"{name}: {notice}", stacklevel=3)
    return [face for face, _ in faces], names, [notice for _, notice in faces], is_list
