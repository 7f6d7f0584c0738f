"""What notebook 08 shows of a run (a `pipeline.Run`): maps of a few test faces, chosen by their place."""

from collections import namedtuple

import numpy as np
import pandas as pd

from .. import data, facs, questions, synthfacs
from ..evaluation.tables import MAIN, ordered_targets
from ..model import generate
from .methods import Word, explain_words, relevance, upsample
from .truth import changed_pixels, close_gaps

Video = namedtuple("Video", "film truth p_yes present truth_name")
"""Pictures by frame; the truth in [0, 1] and P(yes), a row a frame and a column an AU; the truth from which
an AU is present, or None; and what the truth is."""

_ABOUT = (  # type, question and explained word; which faces: column and value; which AUs are in question
    *(
        ("Q1", questions.ask_q1(), emotion, "emotion", emotion, facs.ACTION_UNITS)
        for emotion in ("happiness", "anger")
    ),
    *(
        ("Q2", questions.ask_q2(unit.area), unit.third_person, unit.name, 1, aus)
        for unit, aus in ((facs.ACTION_UNITS[4], (1, 2, 4)), (facs.ACTION_UNITS[12], (12, 14, 15, 20)))
    ),
    *(("Q3", questions.ask_q3(au), questions.YES, f"AU{au}", 1, {au}) for au in (6, 17)),
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
        question moved; None unless faces are rendered), and then, in percent, `relevance_inside` of it, its
        `area`, and their ratio.
    """
    expvqa, faces = run.model(MAIN), run.faces_of(run.caption_corpus)
    rows = []
    for place, (kind, question, word, column, value, aus) in enumerate(_ABOUT):
        if len(fitting := faces[faces[column].eq(value)]):
            face, region = fitting.iloc[place % len(fitting)], None
            if run.is_rendered:
                present = [au for au, label in data.au_labels(face).items() if label and au in aus]
                region = close_gaps(np.any([changed_pixels(face["face"], au)[0] for au in present], axis=0))
            rows.append((kind, question, word, f"{kind}: {question}", face["image"], region))
    table = pd.DataFrame(rows, columns=["type", "question", "word", "title", "image", "region"])
    pairs = expvqa.model, expvqa.processor, table["image"].tolist(), table["question"].tolist()
    maps, p_yes, words = relevance(*pairs, targets=table["word"].tolist())
    says = [
        f"{answer} (P(yes) = {score:.2f})" if kind == "Q3" else f"“{answer.rstrip('.')}”"
        for kind, score, (answer,) in zip(table["type"], p_yes, generate(*pairs), strict=True)
    ]
    texts = [f"Says {text}. Explained: {word}" for text, word in zip(says, words, strict=True)]
    table = table.assign(answer=texts, heat=list(maps), relevance_inside=np.nan, area=np.nan)
    if run.is_rendered:
        regions = np.stack(table["region"])
        large = upsample(maps, regions.shape[1])
        table["relevance_inside"] = 100.0 * (large * regions).sum((1, 2)) / large.sum((1, 2))
        table["area"] = 100 * regions.mean((1, 2))
    return table.assign(ratio=table["relevance_inside"] / table["area"])


def face_au_grid(run) -> tuple:
    """Explain yes for five test persons' faces with most AUs, and for the eight most frequent AUs there.

    Returns:
        What `plots.attention_grid` takes: images, AUs, maps, P(yes), labels, and outlines of rendered faces.
    """
    faces, labels, rows = _expressive(run)
    names = ordered_targets(labels.loc[rows].sum().nlargest(8).index)
    aus, there = [int(name[2:]) for name in names], labels.loc[rows, names].to_numpy()
    expvqa, images = run.model(MAIN), faces.loc[rows, "image"].tolist()
    pairs = zip(*[(image, questions.ask_q3(au)) for image in images for au in aus], strict=True)
    maps, p_yes, _ = relevance(expvqa.model, expvqa.processor, *pairs, targets=[questions.YES] * there.size)
    regions = [
        [
            changed_pixels(faces.at[row, "face"], au)[1]
            if run.is_rendered and labels.at[row, f"AU{au}"] == 1
            else None
            for au in aus
        ]
        for row in rows
    ]
    heat, p_yes = maps.reshape(*there.shape, *maps.shape[1:]), p_yes.reshape(there.shape)
    return images, aus, heat, p_yes, there, regions


def answer_words(run) -> tuple[str, str, str, list[Word]]:
    """Explain every word of an answer to Q1: the first test face, the question, the answer and its words."""
    expvqa, question = run.model(MAIN), questions.ask_q1()
    image = run.faces_of(run.caption_corpus)["image"].iat[0]
    answer = expvqa.ask(image, question, crop=False)
    has_words = any(character.isalnum() for character in answer)
    words = explain_words(expvqa.model, expvqa.processor, image, question, answer) if has_words else []
    return image, question, answer, words


def video(run) -> Video:
    """P(yes), the mean over the wordings of Q3, frame by frame beside the truth.

    Of rendered faces the first test person makes three expressions one after the other, and the truth is each
    AU's intensity. Of data sets it is the label in the first test person's first frames.
    """
    faces, _, rows = _expressive(run)
    if run.is_rendered:
        first = synthfacs.Face.from_json(faces.at[rows.iat[0], "face"])
        acted = synthfacs.sequence(first.identity, _PROGRAMME, _FRAMES, run.profile.seed)
        film = {number: synthfacs.render(acted[number], 192).image for number in range(0, _FRAMES, 12)}
        frames = [synthfacs.render(face, run.profile.corpora.image).image for face in acted[::3]]
        intensities = [{f"AU{au}": face.aus.get(au, 0.0) for au in sorted(_PROGRAMME)} for face in acted[::3]]
        truth = pd.DataFrame(intensities, range(0, _FRAMES, 3))
        about = synthfacs.PRESENT, "true intensity"
    else:
        film, truth = data.inspection.example_video(faces)
        frames, about = list(film.values()), (None, "true label")
    aus = [int(column[2:]) for column in truth]
    p_yes = run.model(MAIN).aus(frames, aus, crop=False).set_axis(truth.index) if aus else truth
    return Video(film, truth, p_yes, *about)


def _expressive(run) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """The AU corpus's test faces, their labels (NaN unlabelled), and five persons' rows with most AUs."""
    faces = run.faces_of(run.au_corpus)
    labels = faces[[f"AU{au}" for au in data.labelled_aus(faces)]].astype("Float64").astype(float)
    return faces, labels, labels.sum(axis=1).groupby(faces["subject"], sort=False).idxmax().head(5)
