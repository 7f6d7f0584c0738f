"""What one wants to know of a face table and its pairs: counts, examples, splits; and of their reading."""

import itertools
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import questions
from ..errors import ImageError
from ..facs import ACTION_UNITS, AREAS, EMOTIONS
from ..files import fingerprint
from .images import load_image
from .readers.reading import Reading
from .readers.splits import published_sizes
from .table import SPLITS, au_labels, labelled_aus


def describe_reading(reading: Reading, sample: int | None = 200) -> str:
    """Return everything about a reading as text; images are decoded, `sample` of them or all (None)."""
    tables = {
        "faces and people": count_faces(reading.table).T,
        "percent of the labelled faces with each AU": au_prevalence(reading.table),
        "faces with each emotion": emotion_counts(reading.table),
        "published sizes (training is training and validation)": pd.Series(published_sizes(reading.dataset)),
    }
    images = reading.table["image"]
    images = images.sample(min(sample or len(images), len(images)), random_state=0).sort_index()
    bad = [*unreadable(reading.root / image for image in images).values()]
    opened = f"{len(images):,} of {len(reading.table):,} images opened"
    problems = reading.problems | ({"image that cannot be opened": bad} if bad else {})
    counts = [
        (title, table.to_string(float_format="{:.1f}".format))
        for title, table in tables.items()
        if len(table)
    ]
    listed = [(f"problem: {len(places)} x {kind}", *places[:10]) for kind, places in problems.items()]
    parts = [f"{reading.dataset} in {reading.root}", *reading.table.attrs["rows"], *reading.notes, opened]
    return "\n\n".join([*parts, *map("\n".join, counts), *map("\n  ".join, listed)])


def unreadable(images: Iterable[str | Path]) -> dict[str, str]:
    """Open each of the images once, with progress; return those that cannot be read, and why."""
    bad = {}
    for image in tqdm(dict.fromkeys(map(str, images)), "opening images", disable=None):
        try:
            load_image(image)
        except ImageError as error:
            bad[image] = str(error)
    return bad


def readable(images: Iterable[str | Path]) -> list[bool]:
    """Whether each of the images can be read; one warning names those that cannot, and are to be left out.

    Raises:
        ImageError: none can.
    """
    images = list(map(str, images))
    if bad := unreadable(images):
        counted = f"{len(bad)} images cannot be read: {'; '.join(bad.values()):.600}"
        if bad.keys() >= {*images}:
            raise ImageError(counted)
        warnings.warn(f"left out, {counted}", stacklevel=2)
    return [image not in bad for image in images]


def people(faces: pd.DataFrame) -> pd.Series:
    """Name the person behind each face: the rendered identity, or data set and subject."""
    if "face" in faces:
        return faces["face"].map(lambda text: str(json.loads(text)["identity"]))
    return faces["dataset"] + " " + faces["subject"].astype(str)


def count_faces(faces: pd.DataFrame) -> pd.DataFrame:
    """Count faces and people: a row a data set, columns by split."""
    groups = faces.assign(person=people(faces)).groupby(["dataset", "split"])
    counts = groups.agg(faces=("image", "size"), people=("person", "nunique"))
    return counts.unstack("split", fill_value=0).reindex(columns=SPLITS, level="split")


def overview(faces: pd.DataFrame, seed: int) -> tuple[list[str], list[str], dict, dict]:
    """What `plots.data_overview` takes: example images, their captions, labels and emotions by data set.

    The examples are the first people of a random order of the training faces, equally many of each data set.
    """
    train = faces.assign(person=people(faces))[faces["split"] == "train"]
    train = train.sample(frac=1, random_state=seed).drop_duplicates("person")
    corpora = dict(list(faces.groupby("dataset", sort=False)))
    examples = pd.concat(train[train["dataset"] == name].head(max(3, 24 // len(corpora))) for name in corpora)
    words = {name: rows["emotion"].dropna().str.split("+").explode() for name, rows in corpora.items()}
    return (
        examples["image"].tolist(),
        [_caption(face) for face in examples.to_dict("records")],
        {name: rows for name, rows in corpora.items() if labelled_aus(rows)},
        {name: emotions for name, emotions in words.items() if len(emotions)},
    )


def _caption(face: Mapping) -> str:
    labels = au_labels(face)
    present = " ".join(str(au) for au, label in labels.items() if label)
    aus = [f"AU {present}" if present else "no AU"] if labels else []
    emotion = [face["emotion"]] if pd.notna(face["emotion"]) else []
    return f"{face['dataset'].removeprefix('synth_')}: {', '.join(emotion + aus)}"


def au_prevalence(faces: pd.DataFrame) -> pd.DataFrame:
    """Percent of the labelled faces that show each AU, by data set and split; NaN where unlabelled."""
    aus = [ACTION_UNITS[au].name for au in labelled_aus(faces)]
    percent = 100 * faces.groupby(["dataset", "split"])[aus].mean().astype(float).T
    return percent.reindex(columns=SPLITS, level="split").dropna(axis="columns", how="all")


def emotion_counts(faces: pd.DataFrame) -> pd.DataFrame:
    """Count the faces of each emotion by data set, beside the prototype that FACS gives the emotion."""
    faces = faces.assign(emotion=faces["emotion"].str.split("+")).explode("emotion")
    counts = pd.crosstab(faces["emotion"], faces["dataset"])
    prototypes = {name: " ".join(f"AU{au}" for au in kind.prototype) for name, kind in EMOTIONS.items()}
    return counts.assign(prototype=counts.index.map(prototypes).fillna(""))


def shared_between_splits(faces: pd.DataFrame) -> pd.DataFrame:
    """Count the people, and the pictures by their bytes, that two splits share."""
    pictures = [fingerprint(Path(image).read_bytes()) for image in faces["image"]]
    faces = faces.assign(person=people(faces), picture=pictures)
    shared = {}
    for a, b in itertools.combinations(SPLITS, 2):
        one, other = faces[faces["split"] == a], faces[faces["split"] == b]
        shared[f"{a} and {b}"] = [len({*one[kind]} & {*other[kind]}) for kind in ("person", "picture")]
    return pd.DataFrame(shared, index=["people in both", "equal pictures in both"])


def example_video(faces: pd.DataFrame) -> tuple[dict[int, str], pd.DataFrame]:
    """Return the first frames of the first test person: pictures by frame number, and each AU's curve.

    A curve is the intensity in [0, 1] of rendered faces, else the label; AUs that never move are left out.
    """
    video = faces[faces["split"] == "test"]
    video = video[video["subject"] == video["subject"].iat[0]]
    if "face" in faces:  # frames are called 01-0003: the third frame of the first video
        video = video[video["frame"].str[:2] == video["frame"].iat[0][:2]]
        numbers, curves = video["frame"].str[3:].astype(int), video.filter(regex=r"^AU\d+_intensity$")
    else:
        video = video.head(12)
        numbers, curves = range(len(video)), video[[ACTION_UNITS[au].name for au in labelled_aus(faces)]]
    curves = curves.astype(float).set_axis(numbers).rename(columns=lambda au: au.removesuffix("_intensity"))
    return dict(zip(numbers, video["image"], strict=True)), curves.loc[:, curves.max() > 0]


def example_pairs(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw up to four training pairs of each type, from every data set; of Q3 a yes and a no.

    Args:
        pairs: `text_input`, `text_output`, `image`, `dataset`, `split`, `question_type`, `au`.
    """
    pairs = pairs[pairs["split"] == "train"].sample(frac=1, random_state=seed)
    pairs = pairs.drop_duplicates(["dataset", "question_type", "text_output", "au"])
    pairs = pairs.assign(answer=pairs["text_output"].where(pairs["question_type"] == "Q3", ""))
    place = pairs.groupby(["dataset", "question_type", "answer"]).cumcount()
    examples = pairs[place < np.where(pairs["question_type"] == "Q3", 1, 2)]
    examples = examples.sort_values(["question_type", "dataset"], kind="stable")
    return examples.groupby("question_type").head(4)


def q3_balance(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count the Q3 questions about each AU by data set and split; the answer is yes to one of three."""
    q3 = pairs[pairs["question_type"] == "Q3"]
    counts = q3.groupby(["dataset", "split", "au"]).size().unstack(["dataset", "split"])
    return counts.reindex(columns=SPLITS, level="split").fillna(0).astype(int).rename("AU{:.0f}".format)


def wordings(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count how many training questions use each wording, and say whose it is."""
    asked = pairs.loc[pairs["split"] == "train", "text_input"].value_counts()
    kinds = {
        "Q1, emotion labelled": (questions.Q1_EMOTION, [{}]),
        "Q1, actions alone": (questions.Q1_ACTIONS, [{}]),
        "Q2": (questions.Q2, [{"area": area} for area in AREAS]),
        "Q3": (questions.Q3, [vars(unit) for unit in ACTION_UNITS.values()]),
    }
    rows = [
        (kind, text, asked[asked.index.isin([text.format(**words) for words in fillings])].sum())
        for kind, (texts, fillings) in kinds.items()
        for text in texts
    ]
    table = pd.DataFrame(rows, columns=["type", "wording", "training pairs"]).set_index("type")
    table.insert(1, "author", np.where(table["wording"] == questions.ask_q1(), "the paper", "this companion"))
    return table


def label_answers(faces: pd.DataFrame, asked: Mapping[str, str], area: str, au: int) -> list[tuple]:
    """What the labels answer to one question of each type: rows of face, question, `Label`, answer.

    Args:
        asked: the question by type, `Q1`, `Q2` about `area` and `Q3` about `au`.
    """
    rows = []
    for number, face in enumerate(faces.to_dict("records")):
        labels, emotion = au_labels(face), face["emotion"] if pd.notna(face["emotion"]) else None
        answers = {
            "Q1": questions.answer_q1([n for n, label in labels.items() if label], emotion),
            "Q2": questions.answer_q2(labels, area),
            "Q3": {1: questions.YES, 0: questions.NO}.get(labels.get(au)),
        }
        rows += [(number, asked[kind], "Label", text or "not labelled") for kind, text in answers.items()]
    return rows
