"""Any vision-language model asked Q1, Q2 and Q3, behind OpenAI's API or from a folder of weights."""

import base64
import io
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..data import load_image
from ..data.chat import Reply, Store
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import file_state, fingerprint
from ..model.damage import refuse
from ..model.load import check_complete, placement
from ..questions import NO, YES, read_yes_no
from .predictions import COLUMNS, FACE_COLUMNS

SIDE = 768  # px of an image's longer side, to save tokens
TOP = 20  # first tokens, as many as OpenAI gives
_ACTIONS = (
    "Facial actions are: {}. Name those that you see, in these words, and say nothing of others.".format(
        ", ".join(unit.third_person for unit in ACTION_UNITS.values())
    )
)
_HOW = {
    "Q1": f"{_ACTIONS} Then name the emotion: {', '.join(EMOTIONS)}.",
    "Q2": _ACTIONS,
    "Q3": "Answer with yes or no alone.",
}
"""What a model that was not trained on these questions must be told."""


class LocalModel(Store):
    """A vision-language model of transformers, through its chat template; no code of the folder is run."""

    def __init__(
        self, folder: str, path: str | Path, *, device: str | None = None, dtype: str | None = None
    ) -> None:
        """Load the weights, of safetensors files alone.

        Args:
            folder: or a name on the Hugging Face hub.
            path: SQLite file of answers.
            device: by default an accelerator, where there is one.
            dtype: by default that of the weights.

        Raises:
            ModelError: it cannot be loaded, lacks weights, or has no chat template.
            SettingsError: the device or dtype is unknown.
        """
        place, given = placement(device, dtype, is_large=True)
        options = {"dtype": given if dtype else "auto", "use_safetensors": True, "output_loading_info": True}
        with refuse(folder, "no vision-language model of transformers that can be asked"):
            self._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            if not getattr(self._processor, "chat_template", None):
                raise ValueError("no chat template; expected a model that is tuned to chat")
            model, report = AutoModelForImageTextToText.from_pretrained(
                folder, trust_remote_code=False, **options
            )
        check_complete(folder, report)
        self._model = model.to(place).eval()
        weights = [file_state(str(file)) for file in sorted(Path(folder).glob("*.safetensors"))]
        super().__init__(f"{folder}-{fingerprint(weights, str(model.dtype))}", path)

    @torch.inference_mode()
    def request(self, body: dict) -> Reply:
        """Generate the answer, greedily; or sample it with the seed of the request."""
        sampled = {"do_sample": "seed" in body, "temperature": 1.0, "top_k": 0} if "seed" in body else {}
        torch.manual_seed(body.get("seed", 0))
        inputs = self._processor.apply_chat_template(
            [_with_pictures(message) for message in body["messages"]],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        options = {"output_logits": True, "return_dict_in_generate": True, **({"do_sample": False} | sampled)}
        out = self._model.generate(**inputs, max_new_tokens=body["max_completion_tokens"], **options)
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :]
        decode = partial(self._processor.decode, skip_special_tokens=True)
        likeliest = torch.log_softmax(out.logits[0][0].float(), -1).topk(TOP)
        first = [
            (decode([token]), value)
            for value, token in zip(*map(torch.Tensor.tolist, likeliest), strict=True)
        ]
        return Reply(
            decode(tokens), "length" if len(tokens) == body["max_completion_tokens"] else "stop", first
        )


def ask(
    model: Store, faces: pd.DataFrame, questions: pd.DataFrame, *, samples: int = 0, in_words: bool = False
) -> pd.DataFrame:
    """Ask each question of `questions_about` about each face of `read_faces`.

    P(yes) of Q3 comes from the log-probabilities of the first token, where the model gives them and yes and
    no have at least half of it; else it is what the answer says. Answers that are neither have none.

    Args:
        samples: in place of that, draw so many answers to Q3; P(yes) is the share of yes among yes and no.
        in_words: go by the words of the answer, not by log-probabilities.

    Returns:
        Predictions in the columns `COLUMNS`, and `p_yes_from`: log-probabilities, words or samples.

    Raises:
        ImageError: an image is missing or unreadable.
        ServerError: see `Store.ask`; the same call goes on.
    """
    table = faces[list(FACE_COLUMNS)].assign(name=faces["name"]).merge(questions, how="cross")
    asked = list(zip(table["image"], table["question"], table["question_type"], strict=True))
    answers = model.map(partial(_answer, model, samples, in_words), asked, "asking")
    table[["answer", "p_yes", "p_yes_from"]] = pd.DataFrame(answers, table.index, dtype=object)
    dtypes = dict.fromkeys(COLUMNS, "string") | {"wording": "int64", "p_yes": "float32"}
    return table.assign(image=table["name"])[[*COLUMNS, "p_yes_from"]].astype(
        dtypes | {"p_yes_from": "string"}
    )


def _answer(model: Store, samples: int, in_words: bool, about: tuple[str, str, str]) -> tuple:
    """The answer, P(yes) and what that was read from."""
    image, question, kind = about
    content = [
        {"type": "image_url", "image_url": {"url": _data_url(image)}},
        {"type": "text", "text": f"{question} {_HOW[kind]}"},
    ]
    messages = [{"role": "user", "content": content}]
    if kind != "Q3":
        return model.ask(messages, temperature=0.0).text, np.nan, None
    if samples:
        texts = [model.ask(messages, temperature=1.0, seed=k).text for k in range(samples)]
        said = [answer for text in texts if (answer := read_yes_no(text)) is not None]
        return texts[0], np.mean(said) if said else np.nan, "samples"
    tops = {} if in_words else {"logprobs": True, "top_logprobs": TOP}
    reply = model.ask(messages, temperature=0.0, **tops)
    yes, no = (
        sum(math.exp(value) for token, value in reply.first if token.strip().lower() == word)
        for word in (YES, NO)
    )
    if not in_words and yes + no >= 0.5:
        return reply.text, yes / (yes + no), "log-probabilities"
    said = read_yes_no(reply.text)
    return reply.text, np.nan if said is None else float(said), "words"


@lru_cache(32)
def _data_url(path: str) -> str:
    image, file = load_image(path), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _with_pictures(message: dict) -> dict:
    """A message as chat templates want it: pictures in place of their addresses."""
    parts: Sequence[dict] = message["content"]
    urls = (part.get("image_url", {}).get("url", "").partition(",")[2] for part in parts)
    pictures = [load_image(base64.b64decode(url)) if url else None for url in urls]
    content = [
        part if picture is None else {"type": "image", "image": picture}
        for part, picture in zip(parts, pictures, strict=True)
    ]
    return message | {"content": content}
