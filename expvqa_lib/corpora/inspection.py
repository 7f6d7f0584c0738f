"""What a reading found, as tables and as text: rows and why they were dropped, splits, labels, images, and how it differs from the paper."""

from __future__ import annotations

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..facs import au_column
from .reading import LISTED, Problem, Reading
from .splits import published_sizes
from .table import SPLITS, labelled_aus


def unreadable(reading: Reading, progress: bool = False) -> Problem:
    """Open every image of the table as far as its size, and return those that cannot be opened."""
    bad = []
    for image in tqdm(reading.table["image"], desc="opening images", disable=not progress):
        try:
            Image.open(reading.root / image).close()
        except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
            bad.append(f"{image}: {type(error).__name__}: {str(error).replace(str(reading.root / image), 'it')}")
    return Problem("image that cannot be opened", len(bad), tuple(bad[:LISTED]))


def rows(reading: Reading) -> pd.DataFrame:
    """Columns `rows` and `count`: read, dropped for each reason, kept. The kept and the dropped add up to the read."""
    counts = {"read": reading.read} | {f"dropped: {reason}": n for reason, n in reading.dropped.items()} | {"kept": len(reading.table)}
    return pd.DataFrame({"rows": list(counts), "count": list(counts.values())})


def counts(reading: Reading) -> pd.DataFrame:
    """Images and subjects a split."""
    found = reading.table.groupby("split")["subject"].agg(images="size", subjects="nunique")
    return found.reindex(list(SPLITS), fill_value=0).reset_index()


def labels(reading: Reading) -> pd.DataFrame:
    """How often each AU is present, absent and unlabelled, and each emotion named, a split; one row a label."""
    table = reading.table
    found = []
    for split in SPLITS:
        part = table[table["split"] == split]
        for au in labelled_aus(table):
            values = part[au_column(au)]
            told = {"present": (values == 1).sum(), "absent": (values == 0).sum(), "unlabelled": values.isna().sum()}
            found += [{"label": au_column(au), "split": split, "is": key, "count": int(n)} for key, n in told.items()]
        if table["emotion"].notna().any():
            told = part["emotion"].str.split("+").explode().value_counts()
            found += [{"label": word, "split": split, "is": "present", "count": int(n)} for word, n in told.items()]
    wide = pd.DataFrame(found).pivot_table(index="label", columns=["split", "is"], values="count", fill_value=0, sort=False)
    wide = wide.astype(int).reindex(columns=[c for s in SPLITS for c in wide.columns if c[0] == s])
    return wide.set_axis([f"{split} {kind}" for split, kind in wide.columns], axis=1).reset_index()


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
    tables = {"rows": rows(reading), "splits": counts(reading), "labels": labels(reading), "against the paper": differences(reading)}
    parts = [f"{reading.dataset} in {reading.root}"]
    parts += [f"{title}\n{_indented(table)}" for title, table in tables.items() if len(table)]
    problems = [*reading.problems, unreadable(reading, progress)]
    parts += [f"problem: {p.count} x {p.kind}\n" + "\n".join(f"  {place}" for place in _shown(p)) for p in problems if p.count]
    parts += ["notes\n" + "\n".join(f"  {note}" for note in reading.notes)] if reading.notes else []
    return "\n\n".join(parts)


def _indented(table: pd.DataFrame) -> str:
    return "\n".join(f"  {line}" for line in table.to_string(index=False).splitlines())


def _shown(problem: Problem) -> list[str]:
    more = problem.count - len(problem.examples)
    return [*problem.examples, *([f"and {more} more"] if more else [])]
