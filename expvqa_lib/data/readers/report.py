"""What was read, as text: rows, why some were dropped, splits, labels, published sizes and problems."""

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..inspection import au_prevalence, count_faces, emotion_counts
from .log import Reading
from .splits import published_sizes

LISTED = 10  # places of each kind of problem


def describe_reading(reading: Reading) -> str:
    """Return everything about a reading as text; every image is opened for it, as far as its size."""
    tables = {
        "faces and people": count_faces(reading.table).T,
        "percent of the labelled faces with each AU": au_prevalence(reading.table),
        "faces with each emotion": emotion_counts(reading.table),
        "published sizes (training is training and validation)": pd.Series(published_sizes(reading.dataset)),
    }
    bad = []
    for image in tqdm(reading.table["image"], desc="opening images", disable=None):
        try:
            Image.open(reading.root / image).close()
        except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
            bad.append(f"{image}: {error}")
    problems = reading.problems | {"image that cannot be opened": bad}
    parts = [f"{reading.dataset} in {reading.root}", *reading.table.attrs["rows"], *reading.notes]
    for title, table in tables.items():
        if len(table):
            parts.append(f"{title}\n{table.to_string(float_format='{:.1f}'.format)}")
    for kind, places in problems.items():
        if places:
            parts.append("\n  ".join([f"problem: {len(places)} x {kind}", *places[:LISTED]]))
    return "\n\n".join(parts)
