"""What notebook 08 shows of a run (a `pipeline.Run`): maps of a few test faces, chosen by their place."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pandas as pd

from ..data import au_labels, labelled_aus
from ..data.inspection import example_video
from ..evaluation.tables import MAIN, ordered_targets
from ..facs import ACTION_UNITS
from ..model.answer import generate, score_yes_no
from ..questions import Q3, YES, ask_q1, ask_q2, ask_q3
from ..synthfacs import PRESENT, Face, au_mask, close_gaps, render, sequence
from .explain import Word, explain_words, relevance, upsample
from .truth import changed_pixels

Video = namedtuple("Video", "film truth p_yes present truth_name")
"""Pictures by frame; the truth in [0, 1] and P(yes), a row a frame and a column an AU; the truth from which
an AU is present, or None; and what the truth is."""

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
    rows = [_example(faces, *about, place) for place, about in enumerate(_ABOUT)]
    rows = [row for row in rows if row]
    asked = expvqa.model, expvqa.processor, [row["image"] for row in rows], [row["question"] for row in rows]
    maps, p_yes, words = relevance(*asked, targets=[row["word"] for row in rows])
    for row, heat, score, word, answers in zip(rows, maps, p_yes, words, generate(*asked), strict=True):
        said = (
            f"{answers[0]} (P(yes) = {score:.2f})" if row["type"] == "Q3" else f"“{answers[0].rstrip('.')}”"
        )
        row |= {"title": f"{row['type']}: {row['question']}", "heat": heat, "region": None}
        row |= {"answer": f"Says {said}. Explained: {word}", "relevance_inside": np.nan, "area": np.nan}
        face, aus = row.pop("face"), row.pop("aus")
        if run.is_drawn:
            drawn = Face.from_json(face["face"])
            row["region"] = close_gaps(np.any([au_mask(drawn, au) for au in aus], axis=0))
            large = upsample(heat[None], len(row["region"]))[0]
            row["relevance_inside"] = 100 * float((large * row["region"]).sum() / large.sum())
            row["area"] = 100 * row["region"].mean()
    table = pd.DataFrame(rows)
    return table.assign(ratio=table["relevance_inside"] / table["area"])


def _example(faces: pd.DataFrame, kind: str, about: str | int, place: int) -> dict | None:
    """The question about one of the faces that fit, the word to explain, and the AUs in question."""
    fitting = faces[faces["emotion"].eq(about) if kind == "Q1" else faces[f"AU{about}"].eq(1)]
    if fitting.empty:
        return None
    face = fitting.iloc[place % len(fitting)]
    aus, unit = [au for au, label in au_labels(face).items() if label], ACTION_UNITS.get(about)
    question, word = ask_q1(), about
    if kind == "Q2":
        question, word = ask_q2(unit.area), unit.third_person
        aus = [au for au in aus if ACTION_UNITS[au].area == unit.area]
    elif kind == "Q3":
        question, word, aus = ask_q3(about), YES, [about]
    return {
        "type": kind,
        "question": question,
        "word": word,
        "image": face["image"],
        "face": face,
        "aus": aus,
    }


def face_au_grid(run) -> tuple:
    """Explain yes for five test persons' faces with most AUs, and for the eight most frequent AUs there.

    Returns:
        What `plots.attention_grid` takes: images, AUs, maps, P(yes), labels, and outlines of drawn faces.
    """
    faces, labels, rows = _expressive(run)
    names = ordered_targets(labels.loc[rows].sum().nlargest(8).index)
    aus, there = [int(name[2:]) for name in names], labels.loc[rows, names].to_numpy()
    expvqa, images = run.model(MAIN), faces.loc[rows, "image"].tolist()
    asked = zip(*[(image, ask_q3(au)) for image in images for au in aus], strict=True)
    maps, p_yes, _ = relevance(expvqa.model, expvqa.processor, *asked, targets=[YES] * there.size)
    regions = None
    if run.is_drawn:
        regions = [
            [changed_pixels(face, au)[1] if label == 1 else None for au, label in zip(aus, row, strict=True)]
            for face, row in zip(faces.loc[rows, "face"], there, strict=True)
        ]
    return (
        images,
        aus,
        maps.reshape(*there.shape, *maps.shape[1:]),
        p_yes.reshape(there.shape),
        there,
        regions,
    )


def answer_words(run) -> tuple[str, str, str, list[Word]]:
    """Explain every word of an answer to Q1: the first test face, the question, the answer and its words."""
    expvqa, image, question = run.model(MAIN), run.faces_of(run.caption_corpus)["image"].iat[0], ask_q1()
    answer = generate(expvqa.model, expvqa.processor, [image], [question])[0][0]
    has_words = any(character.isalnum() for character in answer)
    words = explain_words(expvqa.model, expvqa.processor, image, question, answer) if has_words else []
    return image, question, answer, words


def video(run) -> Video:
    """P(yes), the mean over the wordings of Q3, frame by frame beside the truth.

    Of drawn faces the first test person makes three expressions one after the other, and the truth is each
    AU's intensity. Of data sets it is the label in the first test person's first frames.
    """
    faces, _, rows = _expressive(run)
    if run.is_drawn:
        person = Face.from_json(faces.at[rows.iat[0], "face"]).identity
        acted = sequence(person, _PROGRAMME, _FRAMES, run.profile.seed)
        film = {number: render(acted[number], 192).image for number in range(0, _FRAMES, 12)}
        numbers, side = range(0, _FRAMES, 3), run.profile.corpora.image
        frames = [render(acted[number], side).image for number in numbers]
        intensities = [{f"AU{au}": acted[n].aus.get(au, 0.0) for au in sorted(_PROGRAMME)} for n in numbers]
        truth = pd.DataFrame(intensities, numbers)
    else:
        film, truth = example_video(faces)
        frames = list(film.values())
    p_yes = truth
    if len(truth.columns):
        expvqa, aus = run.model(MAIN), [int(column[2:]) for column in truth]
        p_yes = score_yes_no(expvqa.model, expvqa.processor, frames, aus, wordings=range(len(Q3)))
        p_yes.index = truth.index
    return Video(
        film, truth, p_yes, PRESENT if run.is_drawn else None, "intensity" if run.is_drawn else "label"
    )


def _expressive(run) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """The AU corpus's test faces, their labels (NaN unlabelled), and five persons' rows with most AUs."""
    faces = run.faces_of(run.au_corpus)
    labels = faces[[f"AU{au}" for au in labelled_aus(faces)]].astype("Float64").astype(float)
    return faces, labels, labels.sum(axis=1).groupby(faces["subject"], sort=False).idxmax().head(5)
