"""What notebook 08 shows of a run (a `pipeline.Run`): maps of a few test faces, chosen by their place."""

from collections import namedtuple

import numpy as np
import pandas as pd

from ..data import au_labels, labelled_aus
from ..data.inspection import example_video
from ..evaluation.tables import MAIN, ordered_targets
from ..facs import ACTION_UNITS
from ..model.answer import generate, score_yes_no
from ..questions import Q3, YES, ask_q1, ask_q2, ask_q3
from ..synthfacs import PRESENT, Face, close_gaps, render, sequence
from .explain import Word, explain_words, relevance, upsample
from .truth import changed_pixels

Video = namedtuple("Video", "film truth p_yes present truth_name")
"""Pictures by frame; the truth in [0, 1] and P(yes), a row a frame and a column an AU; the truth from which
an AU is present, or None; and what the truth is."""

_AREAS = {
    au: {a for a, other in ACTION_UNITS.items() if other.area == ACTION_UNITS[au].area} for au in (4, 12)
}
_ABOUT = (  # type, question and explained word; which faces: column and value; which AUs are in question
    *(("Q1", ask_q1(), emotion, "emotion", emotion, ACTION_UNITS) for emotion in ("happiness", "anger")),
    *(
        ("Q2", ask_q2(ACTION_UNITS[au].area), ACTION_UNITS[au].third_person, f"AU{au}", 1, area)
        for au, area in _AREAS.items()
    ),
    *(("Q3", ask_q3(au), YES, f"AU{au}", 1, {au}) for au in (6, 17)),
)
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
    rows = []
    for place, (kind, question, word, column, value, aus) in enumerate(_ABOUT):
        fitting = faces[faces[column].eq(value)]
        if len(fitting):
            face, region = fitting.iloc[place % len(fitting)], None
            if run.is_drawn:
                present = [au for au, label in au_labels(face).items() if label and au in aus]
                region = close_gaps(np.any([changed_pixels(face["face"], au)[0] for au in present], axis=0))
            row = {"type": kind, "question": question, "word": word, "title": f"{kind}: {question}"}
            rows.append(row | {"image": face["image"], "region": region})
    pairs = expvqa.model, expvqa.processor, [row["image"] for row in rows], [row["question"] for row in rows]
    maps, p_yes, words = relevance(*pairs, targets=[row["word"] for row in rows])
    for row, heat, score, word, (answer,) in zip(rows, maps, p_yes, words, generate(*pairs), strict=True):
        says = f"{answer} (P(yes) = {score:.2f})" if row["type"] == "Q3" else f"“{answer.rstrip('.')}”"
        row |= {"answer": f"Says {says}. Explained: {word}", "heat": heat}
        row |= {"relevance_inside": np.nan, "area": np.nan}
        if run.is_drawn:
            large = upsample(heat[None], len(row["region"]))[0]
            row["relevance_inside"] = 100 * float((large * row["region"]).sum() / large.sum())
            row["area"] = 100 * row["region"].mean()
    table = pd.DataFrame(rows)
    return table.assign(ratio=table["relevance_inside"] / table["area"])


def face_au_grid(run) -> tuple:
    """Explain yes for five test persons' faces with most AUs, and for the eight most frequent AUs there.

    Returns:
        What `plots.attention_grid` takes: images, AUs, maps, P(yes), labels, and outlines of drawn faces.
    """
    faces, labels, rows = _expressive(run)
    names = ordered_targets(labels.loc[rows].sum().nlargest(8).index)
    aus, there = [int(name[2:]) for name in names], labels.loc[rows, names].to_numpy()
    expvqa, images = run.model(MAIN), faces.loc[rows, "image"].tolist()
    pairs = zip(*[(image, ask_q3(au)) for image in images for au in aus], strict=True)
    maps, p_yes, _ = relevance(expvqa.model, expvqa.processor, *pairs, targets=[YES] * there.size)
    regions = [
        [
            changed_pixels(faces.at[row, "face"], au)[1]
            if run.is_drawn and labels.at[row, name] == 1
            else None
            for au, name in zip(aus, names, strict=True)
        ]
        for row in rows
    ]
    heat = maps.reshape(*there.shape, *maps.shape[1:])
    return images, aus, heat, p_yes.reshape(there.shape), there, regions


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
        frames = [render(face, run.profile.corpora.image).image for face in acted[::3]]
        intensities = [{f"AU{au}": face.aus.get(au, 0.0) for au in sorted(_PROGRAMME)} for face in acted[::3]]
        truth = pd.DataFrame(intensities, range(0, _FRAMES, 3))
    else:
        film, truth = example_video(faces)
        frames = list(film.values())
    p_yes, expvqa, aus = truth, run.model(MAIN), [int(column[2:]) for column in truth]
    if aus:
        p_yes = score_yes_no(expvqa.model, expvqa.processor, frames, aus, wordings=range(len(Q3)))
    shown = (PRESENT, "intensity") if run.is_drawn else (None, "label")
    return Video(film, truth, p_yes.set_axis(truth.index), *shown)


def _expressive(run) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """The AU corpus's test faces, their labels (NaN unlabelled), and five persons' rows with most AUs."""
    faces = run.faces_of(run.au_corpus)
    labels = faces[[f"AU{au}" for au in labelled_aus(faces)]].astype("Float64").astype(float)
    return faces, labels, labels.sum(axis=1).groupby(faces["subject"], sort=False).idxmax().head(5)
