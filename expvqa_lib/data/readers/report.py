"""What was read, as text: rows, why some were dropped, splits, labels, images, and the paper's sizes."""

from __future__ import annotations

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ...facs import au_column
from ..table import SPLITS, labelled_aus
from .log import LISTED, Reading
from .splits import published_sizes


def describe_reading(reading: Reading) -> str:
    """Return everything about a reading as text; every image is opened for it, as far as its size."""
    tables = {
        "rows": count_rows(reading),
        "splits": _count_faces(reading),
        "labels (present / absent / unlabelled)": _count_labels(reading),
        "against the paper": _compare_sizes(reading),
    }
    parts = [f"{reading.dataset} in {reading.root}"]
    for title, table in tables.items():
        if len(table):
            parts.append(_section(title, table.to_string(index=False).splitlines()))
    for kind, count in reading.problems.items():
        more = count - len(reading.examples[kind])
        lines = [*reading.examples[kind], f"and {more} more"] if more else reading.examples[kind]
        parts.append(_section(f"problem: {count} x {kind}", lines))
    if unreadable := _unreadable_images(reading):
        parts.append(_section(f"images that cannot be opened: {len(unreadable)}", unreadable[:LISTED]))
    if reading.notes:
        parts.append(_section("notes", reading.notes))
    return "\n\n".join(parts)


def _section(title: str, lines) -> str:
    return "\n  ".join([title, *lines])


def count_rows(reading: Reading) -> pd.DataFrame:
    """Columns `rows` and `count`: read, dropped for each reason, kept."""
    counts = {"read": reading.read}
    counts |= {f"dropped: {reason}": count for reason, count in reading.dropped.items()}
    counts["kept"] = len(reading.table)
    return pd.DataFrame(counts.items(), columns=["rows", "count"])


def _count_faces(reading: Reading) -> pd.DataFrame:
    """Columns `split`, `images` and `subjects`."""
    counts = reading.table.groupby("split")["subject"].agg(images="size", subjects="nunique")
    return counts.reindex(list(SPLITS), fill_value=0).reset_index()


def _count_labels(reading: Reading) -> pd.DataFrame:
    """A row a label, a column a split: of AUs `present / absent / unlabelled`, of emotions how often."""
    counts: dict[str, dict[str, str]] = {}
    for name in map(au_column, labelled_aus(reading.table)):
        counts[name] = {
            split: f"{(values == 1).sum()} / {(values == 0).sum()} / {values.isna().sum()}"
            for split, values in reading.table.groupby("split")[name]
        }
    emotions = reading.table.assign(emotion=reading.table["emotion"].str.split("+")).explode("emotion")
    for name, faces in emotions.groupby("emotion"):
        counts[name] = faces["split"].value_counts().astype(str).to_dict()
    table = pd.DataFrame.from_dict(counts, orient="index", columns=list(SPLITS)) if counts else pd.DataFrame()
    return table.fillna("0").rename_axis("label").reset_index()


def _compare_sizes(reading: Reading) -> pd.DataFrame:
    """What the paper says beside what was read; its training set is our training and validation set."""
    counts = _count_faces(reading).set_index("split")
    counts.loc["train"] += counts.loc["validation"]
    rows = []
    for key, published in published_sizes(reading.dataset).items():
        part, unit = key.split("_")
        count = int(counts.loc[part, unit])
        rows.append((f"{part} {unit}", published, count, count - published))
    return pd.DataFrame(rows, columns=["of", "published", "found", "difference"])


def _unreadable_images(reading: Reading) -> list[str]:
    bad = []
    for image in tqdm(reading.table["image"], desc="opening images", disable=None):
        try:
            Image.open(reading.root / image).close()
        except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
            bad.append(f"{image}: {type(error).__name__}: {error}".replace(f"{reading.root}/", ""))
    return bad
