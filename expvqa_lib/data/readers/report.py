"""What a reading found, as tables and as text: rows, why some were dropped, splits, labels, images, and what differs from the paper."""

from __future__ import annotations

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ...facs import au_column
from ..splits import published_sizes
from ..table import SPLITS, labelled_aus
from .log import LISTED, Problem, Reading


def unreadable(reading: Reading, progress: bool = False) -> Problem:
    """Open every image of the table as far as its size, and return those that cannot be opened."""
    bad = []
    for image in tqdm(reading.table["image"], desc="opening images", disable=not progress):
        try:
            Image.open(reading.root / image).close()
        except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
            bad.append(
                f"{image}: {type(error).__name__}: {str(error).replace(str(reading.root / image), 'it')}"
            )
    return Problem("image that cannot be opened", len(bad), tuple(bad[:LISTED]))


def rows(reading: Reading) -> pd.DataFrame:
    """Columns `rows` and `count`: read, dropped for each reason, kept. The kept and the dropped add up to the read."""
    counts = (
        {"read": reading.read}
        | {f"dropped: {reason}": n for reason, n in reading.dropped.items()}
        | {"kept": len(reading.table)}
    )
    return pd.DataFrame({"rows": list(counts), "count": list(counts.values())})


def counts(reading: Reading) -> pd.DataFrame:
    """Images and subjects a split."""
    found = reading.table.groupby("split")["subject"].agg(images="size", subjects="nunique")
    return found.reindex(list(SPLITS), fill_value=0).reset_index()


def labels(reading: Reading) -> pd.DataFrame:
    """How often each AU is present, absent and unlabelled, and each emotion named, a split.

    Returns:
        Columns `label`, `split`, `present`, `absent`, `unlabelled`; the last two are missing for emotions.
    """
    table, found = reading.table, []
    for split in SPLITS:
        part = table[table["split"] == split]
        for name in map(au_column, labelled_aus(table)):
            values = part[name]
            found.append(
                (name, split, int((values == 1).sum()), int((values == 0).sum()), int(values.isna().sum()))
            )
        words = part["emotion"].dropna().str.split("+").explode().value_counts()
        found += [(word, split, int(count), None, None) for word, count in words.items()]
    return pd.DataFrame(found, columns=["label", "split", "present", "absent", "unlabelled"]).astype(
        dict.fromkeys(["absent", "unlabelled"], "Int64")
    )


def differences(reading: Reading) -> pd.DataFrame:
    """What the paper says beside what was found; its training set is our training and validation set. Empty where it says nothing."""
    found = counts(reading).set_index("split")
    ours = {
        f"{name}_{unit}": int(found.loc[list(parts), unit].sum())
        for name, parts in (("train", ("train", "validation")), ("test", ("test",)))
        for unit in ("images", "subjects")
    }
    told = published_sizes(reading.dataset)
    table = pd.DataFrame({"of": [key.replace("_", " ") for key in told], "published": list(told.values())})
    return table.assign(found=[ours[key] for key in told], difference=[ours[key] - told[key] for key in told])


def report(reading: Reading, *, progress: bool = False) -> str:
    """Return everything about a reading as text; every image is opened on the way."""
    told = labels(reading)
    numbers = (
        told[["present", "absent", "unlabelled"]]
        .astype("string")
        .fillna("-")
        .agg(" / ".join, axis=1)
        .str.removesuffix(" / - / -")
    )
    wide = (
        told.assign(is_=numbers)
        .pivot(index="label", columns="split", values="is_")
        .reindex(columns=list(SPLITS))
        .astype("string")
    )
    wide = wide.reindex(told["label"].drop_duplicates()).fillna("0").rename_axis(columns=None).reset_index()
    tables = {
        "rows": rows(reading),
        "splits": counts(reading),
        "labels (present / absent / unlabelled)": wide,
        "against the paper": differences(reading),
    }
    parts = [f"{reading.dataset} in {reading.root}"]
    parts += [f"{title}\n{_indented(table)}" for title, table in tables.items() if len(table)]
    problems = [*reading.problems, unreadable(reading, progress)]
    parts += [
        f"problem: {p.count} x {p.kind}\n" + "\n".join(f"  {place}" for place in _shown(p))
        for p in problems
        if p.count
    ]
    parts += ["notes\n" + "\n".join(f"  {note}" for note in reading.notes)] if reading.notes else []
    return "\n\n".join(parts)


def _indented(table: pd.DataFrame) -> str:
    return "\n".join(f"  {line}" for line in table.to_string(index=False).splitlines())


def _shown(problem: Problem) -> list[str]:
    more = problem.count - len(problem.examples)
    return [*problem.examples, *([f"and {more} more"] if more else [])]
