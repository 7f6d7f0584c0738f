"""What notebook 07 shows: maps of a few test faces of a run (a `pipeline.Run`), which nobody chose by their
looks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.table import au_labels, labelled_aus
from ..evaluation.tables import MAIN, ordered_targets
from ..facs import ACTION_UNITS
from ..model.answer import generate, score_yes_no
from ..questions import Q3, YES, ask_q1, ask_q2, ask_q3
from ..synthfacs import PRESENT, Face, au_mask, close_gaps, render, sequence
from .explain import Word, explain_words, relevance, upsample
from .truth import changed_pixels

_ABOUT = (("Q1", "happiness"), ("Q1", "anger"), ("Q2", 4), ("Q2", 12), ("Q3", 6), ("Q3", 17))
_PROGRAMME = {  # AU: first and last frame, intensity in the middle
    1: (2, 40, 1.0),
    2: (8, 40, 1.0),
    6: (36, 76, 0.9),
    12: (32, 80, 1.0),
    4: (84, 118, 1.0),
    17: (72, 118, 1.0),
}
_FRAMES = 121


class FaceAuGrid(NamedTuple):
    """Maps for yes of faces (rows) and AUs (columns)."""

    images: list
    aus: list[int]
    heat: np.ndarray  # [F, A, h, h]
    p_yes: np.ndarray  # [F, A]
    labels: np.ndarray  # [F, A], NaN unlabelled
    regions: list[list[np.ndarray | None]] | None  # masks of what present AUs moved, of drawn faces


class AnswerWords(NamedTuple):
    """A face, a question, the answer and its words."""

    image: object
    question: str
    answer: str
    words: list[Word]


class Video(NamedTuple):
    """A film, and the truth beside P(yes), a row a frame and a column an AU."""

    film: dict[int, object]  # pictures by frame
    truth: pd.DataFrame  # from 0 to 1
    p_yes: pd.DataFrame
    present: float | None  # from this truth on an AU is present
    truth_name: str


def examples(run) -> pd.DataFrame:
    """Explain one word for two test faces of each type of question, taken by their place in the table.

    Explained is the logit of one word as the first of the answer: for Q1 the emotion, for Q2 the verb of a
        present action, for Q3 yes.

    Returns:
        Columns type, question, word, title, answer, image, heat [h, h], region (mask of what the AUs in
        question moved; None unless faces are drawn), and then, in percent, `relevance_inside` of it, its
        `area`, and their ratio.
    """
    expvqa, faces = run.model(MAIN), run.faces_of(run.caption_corpus)
    found = [_example(faces, *about, place) for place, about in enumerate(_ABOUT)]
    cases = pd.DataFrame(
        [case for case in found if case], columns=["type", "question", "word", "face", "image", "about"]
    )
    asked = expvqa.model, expvqa.processor, list(cases["image"]), list(cases["question"])
    maps, p_yes, words = relevance(*asked, targets=list(cases["word"]))
    answers = [texts[0] for texts in generate(*asked)]
    notes = np.where(
        cases["type"] == "Q3",
        [f"{answer} (P(yes) = {p:.2f})" for answer, p in zip(answers, p_yes, strict=True)],
        [f"“{answer.rstrip('.')}”" for answer in answers],
    )
    cases["title"] = cases["type"] + ": " + cases["question"]
    cases["answer"] = [f"Says {note}. Explained: {word}" for note, word in zip(notes, words, strict=True)]
    cases["heat"] = list(maps)
    cases["region"] = [
        _moved(face, about) if run.is_drawn else None
        for face, about in zip(cases["face"], cases["about"], strict=True)
    ]
    cases[["relevance_inside", "area", "ratio"]] = np.nan
    for k, region in cases["region"].dropna().items():
        large = upsample(maps[k : k + 1], len(region))[0]
        inside, area = float((large * region).sum() / large.sum()), region.mean()
        cases.loc[k, ["relevance_inside", "area", "ratio"]] = 100 * inside, 100 * area, inside / area
    return cases.drop(columns=["face", "about"])


def _example(faces: pd.DataFrame, kind: str, about: str | int, place: int) -> tuple | None:
    """Type, question, word, face, image, and AU or area in question, of one of the faces that fit, if any."""
    fitting = faces[faces["emotion"].eq(about) if kind == "Q1" else faces[f"AU{about}"].eq(1)]
    if fitting.empty:
        return None
    face = fitting.iloc[place % len(fitting)]
    if kind == "Q1":
        return kind, ask_q1(), about, face, face["image"], None
    unit = ACTION_UNITS[about]
    if kind == "Q2":
        return kind, ask_q2(unit.area), unit.third_person, face, face["image"], unit.area
    return kind, ask_q3(about), YES, face, face["image"], about


def _moved(face: pd.Series, about: str | int | None) -> np.ndarray:
    """The region of the pixels that a drawn face's present AUs moved: all, those of one area, or one AU."""
    aus = [
        au for au, label in au_labels(face).items() if label and about in (None, au, ACTION_UNITS[au].area)
    ]
    return close_gaps(np.any([au_mask(Face.from_json(face["face"]), au) for au in aus], axis=0))


def face_au_grid(run, people: int = 5, most: int = 8) -> FaceAuGrid:
    """Explain yes for the first test persons' faces with most AUs, and for the most frequent AUs there."""
    faces, labels = _test_labels(run)
    rows = labels.sum(axis=1).groupby(faces["subject"], sort=False).idxmax().head(people)
    names = ordered_targets(labels.loc[rows].sum().nlargest(most).index)
    aus, there = [int(name[2:]) for name in names], labels.loc[rows, names].to_numpy()
    expvqa, images = run.model(MAIN), faces.loc[rows, "image"].tolist()
    pictures, questions = zip(*[(image, ask_q3(au)) for image in images for au in aus], strict=True)
    maps, p_yes, _ = relevance(
        expvqa.model, expvqa.processor, pictures, questions, targets=[YES] * len(pictures)
    )
    regions = None
    if run.is_drawn:
        regions = [
            [changed_pixels(face, au)[1] if label == 1 else None for au, label in zip(aus, row, strict=True)]
            for face, row in zip(faces.loc[rows, "face"], there, strict=True)
        ]
    heat = maps.reshape(*there.shape, *maps.shape[1:])
    return FaceAuGrid(images, aus, heat, p_yes.reshape(there.shape), there, regions)


def answer_words(run) -> AnswerWords:
    """Explain every word of the answer to Q1 about the first test face."""
    expvqa, image, question = run.model(MAIN), run.faces_of(run.caption_corpus)["image"].iat[0], ask_q1()
    answer = generate(expvqa.model, expvqa.processor, [image], [question])[0][0]
    has_words = any(character.isalnum() for character in answer)
    words = explain_words(expvqa.model, expvqa.processor, image, question, answer) if has_words else []
    return AnswerWords(image, question, answer, words)


def video(run) -> Video:
    """P(yes), the mean over the wordings of Q3, frame by frame beside the truth.

    Of drawn faces the first test person makes three expressions one after the other, and the truth is each
    AU's intensity. Of data sets it is the label in the first test person's first 40 frames, for AUs that
    change there.
    """
    faces, labels = _test_labels(run)
    if run.is_drawn:
        film, frames, truth = _acted(run, faces, labels)
        present, name = PRESENT, "intensity"
    else:
        rows = faces.index[faces["subject"] == faces["subject"].iat[0]][:40]
        frames = dict(enumerate(faces.loc[rows, "image"]))
        film = dict(list(frames.items())[:: max(1, len(frames) // 10)])
        truth, present, name = labels.loc[rows].reset_index(drop=True), None, "label"
        truth = truth.loc[:, truth.max() > truth.min()]
    p_yes = truth
    if len(truth.columns):
        expvqa, aus = run.model(MAIN), [int(column[2:]) for column in truth]
        p_yes = score_yes_no(
            expvqa.model, expvqa.processor, list(frames.values()), aus, wordings=range(len(Q3))
        ).set_axis(truth.index)
    return Video(film, truth, p_yes, present, name)


def _acted(run, faces: pd.DataFrame, labels: pd.DataFrame) -> tuple[dict, dict, pd.DataFrame]:
    """A drawn video of the first test person: pictures to show, pictures for the model, and intensities."""
    first = labels.sum(axis=1).groupby(faces["subject"], sort=False).idxmax().iat[0]
    person = Face.from_json(faces.at[first, "face"]).identity
    acted = sequence(person, _PROGRAMME, _FRAMES, run.profile.seed)
    film = {number: render(acted[number], 192).image for number in range(0, _FRAMES, 12)}
    frames = {
        number: render(acted[number], run.profile.corpora.image).image for number in range(0, _FRAMES, 3)
    }
    aus = sorted(_PROGRAMME)
    truth = [{f"AU{au}": acted[number].aus.get(au, 0.0) for au in aus} for number in frames]
    return film, frames, pd.DataFrame(truth, list(frames))


def _test_labels(run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The AU corpus's test faces and their labels as floats, NaN unlabelled."""
    faces = run.faces_of(run.au_corpus)
    return faces, faces[[f"AU{au}" for au in labelled_aus(faces)]].astype("Float64").astype(float)
