"""Everybody's pictures and videos as one table: a row a face, with what the model says of it."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.footage import BOX, View, count_views, find_files, is_video, number_people, views
from ..data.images import find_faces
from ..errors import ImageError, SettingsError
from ..files import cached, file_state, fingerprint, save_table
from ..model import embed_images, generate, score_yes_no
from ..questions import Q3, ask_q1, read_emotion
from ..training import encoder_key

NOTHING_FOUND = "no face found"
PART = 64  # views: a run that is killed loses at most what was found in so many
SCORED = {"file": "string", "frame": "Int64", "time": float, "face": "Int64", "subject": "string"}
SCORED |= dict.fromkeys(BOX, "Int64") | {"notice": "string"}


def score(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    paths: Sequence[str | Path],
    aus: Sequence[int],
    *,
    output: str | Path | None = None,
    ask: Sequence[str] = (),
    emotion: bool = True,
    largest: bool = False,
    every: int = 1,
    fps: float | None = None,
) -> pd.DataFrame:
    """Score every face of pictures, folders, globs and videos; the vision encoder runs once a face.

    Args:
        paths: as of `data.find_files`.
        aus: the AUs to score, by number.
        output: a .csv or .parquet; finished parts are kept beside it, and a run that was killed goes on.
        ask: questions, each answered in a column of its name.
        emotion: also ask Q1, and read the emotion out of its answer.
        largest: take the largest face of a picture or frame, not all.
        every, fps: which frames of a video, see `data.views`.

    Returns:
        A row a face, and a row a picture or frame without one: file, frame (from 0) and time (seconds) of a
        video, face (1 the largest), subject (of a video: who it is, by the boxes over time), left, top, width
        and height of the face (pixels), notice, emotion, the answers, and P(yes) of each AU.

    Raises:
        SettingsError: there is no file, or an option is out of range.
    """
    if every < 1 or (fps is not None and fps <= 0):
        raise SettingsError(f"found every {every} and fps {fps}; expected a whole number from 1, or above 0")
    if output and not str(output).lower().endswith((".csv", ".parquet")):
        raise SettingsError(f"{output}: expected a table's name, .csv or .parquet")
    files, frames = find_files(paths), {"every": every, "fps": fps}
    look = partial(_score_views, model, processor, list(aus), list(dict.fromkeys(ask)), emotion, largest)
    key = encoder_key([model], model.generation_config.to_diff_dict(), look.args[2:], frames)
    jobs = [[file for file in files if not is_video(file)], *([file] for file in files if is_video(file))]
    bar = tqdm(total=count_views(files, **frames), desc="scoring", unit="picture")
    with TemporaryDirectory() as scratch, bar:
        folder = Path(f"{output}-parts" if output else scratch)
        tables = [_score_job(job, folder, key, look, frames, bar) for job in jobs if job]
    order = {"key": pd.Index(files).get_indexer, "kind": "stable", "ignore_index": True}
    table = pd.concat(tables).sort_values("file", **order)
    if output:
        save_table(table, output)
        shutil.rmtree(folder)
    return table


def _score_job(
    job: list[str], folder: Path, key: str, look: Callable, frames: dict, bar: tqdm
) -> pd.DataFrame:
    """The rows of all pictures, or of one video, made or read part by part."""
    part = f"{folder.as_posix()}/{fingerprint(key, [file_state(file) for file in job])}-{{}}.parquet".format
    seen = views(job, **frames, wanted=lambda position, _: not Path(part(position // PART)).exists())
    parts = []
    while first := next(seen, None):  # one picture at a time: 64 large ones would fill the memory
        some = chain([first], islice(seen, PART - 1))
        parts.append(cached(part(len(parts)), partial(look, _ticking(some, bar))))
        bar.update(sum(1 for _ in some))  # those of a part that was there already
    table = pd.concat(parts, ignore_index=True)
    if is_video(job[0]):  # name its people
        faces = table.dropna(subset=["face", "time"])
        table["subject"] = f"{Path(job[0]).with_suffix('')}_" + number_people(faces).astype("string")
    return table


def _ticking(seen: Iterable[View], bar: tqdm) -> Iterator[View]:
    for view in seen:
        yield view
        bar.update()


def _score_views(model, processor, aus, questions, emotion: bool, largest: bool, seen: Iterable[View]):
    """The rows of some views."""
    rows, crops, places = [], [], []
    for view in seen:
        is_there = not isinstance(view.image, ImageError)
        faces = find_faces(view.image, most=1 if largest else None) if is_there else []
        about = {"file": view.file, "frame": view.frame, "time": view.time}
        for k, face in enumerate(faces, 1):
            places.append(len(rows))
            crops.append(face.image)
            rows.append(about | {"face": k, "notice": face.notice} | dict(zip(BOX, face.box, strict=True)))
        if not faces:
            rows.append(
                about
                | {"notice": NOTHING_FOUND if is_there else str(view.image).removeprefix(f"{view.file}: ")}
            )
    table = pd.DataFrame(rows, columns=list(SCORED)).astype(SCORED)
    embeds = embed_images(model, processor, crops)
    answers = {}
    for name, question in [("emotion", ask_q1())] * emotion + [(text, text) for text in questions]:
        replies = generate(model, processor, embeds, [question] * len(crops))
        answers[name] = [read_emotion(reply) if name == "emotion" else reply for (reply,) in replies]
    answers = pd.DataFrame(answers, places, dtype="string")
    scores = score_yes_no(model, processor, embeds, aus, wordings=range(len(Q3))).set_axis(places)
    return table.join(answers).join(scores)
