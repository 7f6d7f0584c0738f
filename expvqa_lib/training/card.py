"""The model card of a fine-tuned model: `README.md` in its folder, as the Hugging Face hub shows it."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import datasets
import pandas as pd
from huggingface_hub import ModelCardData

from ..errors import ModelError
from ..facs import ACTION_UNITS
from ..files import atomic
from .recipe import Recipe

_CARD = Path(__file__).parents[1] / "assets" / "card.md"
_TRAINS = {
    "exp_vqa": "trains the vision encoder, the Q-Former, the queries and the projection",
    "exp_vqa_fz": "keeps the vision encoder frozen, all but its final norm, and trains the rest",
}


def model_card(
    base: str, variant: str, recipe: Recipe, steps: int, processes: int, pairs: Mapping[str, datasets.Dataset]
) -> str:
    """Write the card of a model that was fine-tuned from `base` on the splits `pairs`."""
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists()
    name = base if is_hub else Path(base).name or "a model that was not saved"
    tags = ["exp-vqa", "facial-expression", "facial-action-units", "visual-question-answering"]
    data = {
        "license": "other",
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": tags,
    }
    data = ModelCardData(**data, base_model=base if is_hub else None)
    columns = ["image_id", "dataset", "question_type", "au"]
    frames = {name: split.select_columns(columns).to_pandas() for name, split in pairs.items()}
    rows = pd.concat([frame.assign(split=name) for name, frame in frames.items()])
    keys = ["split", "dataset", "question_type"]
    counts = rows.groupby(keys, sort=False)["image_id"].agg(pairs="size", images="nunique").reset_index()
    unasked = [unit.name for number, unit in ACTION_UNITS.items() if number not in set(rows["au"])]
    return _CARD.read_text(encoding="utf-8").format(
        data=data.to_yaml(),
        base=f"`{name}`",
        variant=variant,
        trains=_TRAINS[variant],
        pairs=_markdown(counts),
        steps=steps,
        processes=processes,
        plural="es" * (processes > 1),
        recipe=_markdown(pd.DataFrame(asdict(recipe).items(), columns=["setting", "value"])),
        unasked=f"action units without a question: {', '.join(unasked) or 'none'}",
    )


def add_results(folder: str | Path, results: Mapping[str, pd.DataFrame]) -> None:
    """Write tables, each below its title, in place of what the card's section "Measured" holds.

    Raises:
        ModelError: the folder has no card with such a section.
    """
    path = Path(folder) / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    tables = "\n\n".join(f"{title}\n\n{_markdown(table.reset_index())}" for title, table in results.items())
    card, found = re.subn(r"(?s)(?<=## Measured\n\n).*?(?=\n\n## |\Z)", lambda _: tables, card, count=1)
    if not found:
        raise ModelError(f"{path}: no model card with a section Measured; fine-tuning writes one")
    with atomic(path) as temporary:
        temporary.write_text(card, encoding="utf-8")


def _markdown(table: pd.DataFrame) -> str:
    cells = table.map(lambda cell: str(cell).replace("|", "\\|").replace("\n", " "))
    lines = [map(str, table.columns), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
