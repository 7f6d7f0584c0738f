"""The model card of a fine-tuned model: `README.md` in its folder, as the Hugging Face hub shows it."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import datasets
import pandas as pd
from huggingface_hub import ModelCardData
from transformers import InstructBlipForConditionalGeneration

from ..errors import ModelError
from ..facs import ACTION_UNITS
from ..files import atomic, markdown
from ..questions import read_aus
from .recipe import Recipe

TAGS = ["exp-vqa", "facial-expression", "facial-action-units", "visual-question-answering"]
_CARD = Path(__file__).parents[1] / "assets" / "card.md"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_MARKUP = re.compile(r"[\\`*~<&$]|\](?=[(\[])|\b_|_\b")
_MEASURED = re.compile(r"(?s)(?<=\n## Measured\n\n).*?(?=\n\n## |\Z)")
_TRAINS = {
    "exp_vqa": "trains the vision encoder, the Q-Former, the queries and the projection",
    "exp_vqa_fz": "keeps the vision encoder frozen, all but its final norm, and trains the rest",
}


def base_name(source: str) -> str:
    """What others may call the model that was loaded from `source`: its hub name, or that of its folder."""
    is_hub = _HUB_NAME.fullmatch(source) and not Path(source).exists()
    return source if is_hub else Path(source).name or "a model that was not saved"


def model_card(
    model: InstructBlipForConditionalGeneration,
    variant: str,
    recipe: Recipe,
    steps: int,
    processes: int,
    pairs: Mapping[str, datasets.Dataset],
) -> str:
    """Write the card of what becomes of `model` when it is fine-tuned on the splits `pairs`."""
    base, columns = base_name(model.name_or_path), ["image", "dataset", "question_type", "text_input"]
    rows = pd.concat(
        split.select_columns([name for name in columns if name in split.column_names])
        .to_pandas()
        .reindex(columns=columns)
        .fillna("not named")  # the data set: training has refused pairs without the others
        .assign(split=name)
        for name, split in pairs.items()
    )
    keys = ["split", "dataset", "question_type"]
    counts = rows.groupby(keys, sort=False)["image"].agg(pairs="size", images="nunique").reset_index()
    asked = rows.loc[rows["question_type"] == "Q3", "text_input"].unique()
    asked = set().union(*(aus for question in asked for aus in read_aus(question)))
    unasked = [unit.name for number, unit in ACTION_UNITS.items() if number not in asked]
    names = list(rows["dataset"].unique())
    is_rendered = hasattr(model.config, "trained_on") and all(name.startswith("synth_") for name in names)
    data = ModelCardData(
        license="bsd-3-clause" if is_rendered else "other",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=base if _HUB_NAME.fullmatch(base) else None,
        # the hub refuses other letters
        datasets=[re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "own" for name in names],
        tags=TAGS,
    )
    return _CARD.read_text(encoding="utf-8").format(
        data=data.to_yaml(),
        base=_plain(base),
        variant=variant,
        trains=_TRAINS[variant],
        pairs=markdown(counts.map(_plain)),
        steps=steps,
        processes=processes,
        plural="es" * (processes > 1),
        recipe=markdown(pd.DataFrame(asdict(recipe).items(), columns=["setting", "value"])),
        photographs="photographs, since these faces are rendered; " if is_rendered else "",
        unasked=f"action units without a question: {', '.join(unasked) or 'none'}",
    )


def read_card(folder: str | Path) -> str:
    """The card in a model's folder.

    Raises:
        ModelError: there is none with a section "Measured".
    """
    path = Path(folder) / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not _MEASURED.search(card):
        raise ModelError(f"{path}: no model card with a section Measured; fine-tuning writes one")
    return card


def add_results(folder: str | Path, results: Mapping[str, pd.DataFrame]) -> None:
    """Write tables, each below its title, in place of what the card's section "Measured" holds.

    Raises:
        ModelError: the folder has no card with such a section.
    """
    parts = []
    for title, table in results.items():
        cells = table.fillna("-").reset_index().rename(columns=_plain).map(_plain)
        parts += [f"{title}, percent, with 95 % intervals:", markdown(cells)]
    card = _MEASURED.sub(lambda _: "\n\n".join(parts), read_card(folder), count=1)
    with atomic(Path(folder) / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


def _plain(value: object) -> str:
    """A value as Markdown that shows it letter by letter, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))
