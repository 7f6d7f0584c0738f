"""Pictures, folders and videos as people have them: the files, and what is to be seen in each."""

import glob
import os
import re
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import linear_sum_assignment

from ..errors import ImageError, SettingsError
from .images import load_image
from .readers.programs import BOX, VIDEOS, overlap
from .readers.reading import SUFFIX

_MEDIA = re.compile(rf"{SUFFIX}|\.(?i:gif|heic|heif|avif|{'|'.join(name[1:] for name in VIDEOS)})$")
_APART = 2.0  # s: a face that was away for longer counts as another one
DECODED = "a whole video that OpenCV decodes (mp4, avi, mov, webm)"

View = namedtuple("View", "file frame time image")
"""A picture, or a video's frame with its number from 0 and its time in seconds. The image is RGB, None where
it was not wanted, or the ImageError that tells why there is none."""


def is_video(file: str) -> bool:
    """Whether a file is called as a video."""
    return file.lower().endswith(VIDEOS)


def find_files(paths: Iterable[str | Path]) -> list[str]:
    """The pictures and videos of files, folders (also those below) and globs; each once, in the order given.

    Hidden files are left out; other files of a folder are named in a warning.

    Raises:
        SettingsError: a path leads to no file.
    """
    found, others = [], []
    for path in map(str, paths):
        files = [path] if os.path.isfile(path) else sorted(glob.glob(path, recursive=True))
        if os.path.isdir(path):
            files = sorted(map(str, Path(path).rglob("[!.]*")))
            files = [file for file in files if "/." not in file.removeprefix(path)]
            others += [file for file in files if not _MEDIA.search(file) and os.path.isfile(file)]
            files = [file for file in files if _MEDIA.search(file)]
        files = [file for file in files if os.path.isfile(file)]
        if not files:
            raise SettingsError(f"{path}: no picture or video there; expected a file, a folder or a pattern")
        found += files
    if others:
        warnings.warn(f"{len(others)} other files are not read, such as {others[0]}", stacklevel=2)
    return list(dict.fromkeys(found))


def views(
    files: Iterable[str],
    every: int = 1,
    fps: float | None = None,
    wanted: Callable[[int, int | None], bool] = lambda position, frame: True,
) -> Iterator[View]:
    """The pictures of files and the frames of videos; a video that cannot be opened is one view.

    Args:
        every: of a video, each frame of so many.
        fps: or so many frames a second, by the times that the video gives.
        wanted: by a view's position and its frame, whether to decode it.
    """
    position = 0
    for file in files:
        for frame, time, read in _frames(file, every, fps) if is_video(file) else [(None, None, load_image)]:
            image = None
            if wanted(position, frame):
                try:
                    image = read(file)
                except ImageError as error:
                    image = error
            yield View(file, frame, time, image)
            position += 1


def count_views(files: Iterable[str], every: int = 1, fps: float | None = None) -> int:
    """How many views there are, by what the videos say of their length."""
    total = 0
    for file in files:
        frames, rate = 1, 0.0
        if is_video(file):
            video = cv2.VideoCapture(file)
            frames, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
        total += max(1, round(frames * min(1, fps / rate) if fps and rate else frames / every))
    return total


def video_frame(file: str, number: int) -> Image.Image:
    """One frame of a video, counted from 0.

    Raises:
        ImageError: it cannot be read.
    """
    video = cv2.VideoCapture(file)
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    there, pixels = video.read()
    if not there:
        raise ImageError(f"{file}: frame {number} cannot be read; expected {DECODED}")
    return load_image(pixels, bgr=True)


def _frames(file: str, every: int, fps: float | None) -> Iterator[tuple[int | None, float | None, Callable]]:
    """Number, seconds and decoder of each frame to take; a video that ends early says so in a last one."""
    video, taken, number = cv2.VideoCapture(file), 0, 0
    rate, length = video.get(cv2.CAP_PROP_FPS) or 25.0, video.get(cv2.CAP_PROP_FRAME_COUNT)

    def decode(_: str) -> Image.Image:
        there, pixels = video.retrieve()
        if not there:
            raise ImageError(f"{file}: frame {number} cannot be decoded")
        return load_image(pixels, bgr=True)

    def refuse(_: str) -> Image.Image:
        what = f"ends after {number} of {length:.0f} frames" if number else "no frame can be read"
        raise ImageError(f"{file}: {what}; expected {DECODED}")

    for number in count():
        if not video.grab():
            break
        time = video.get(cv2.CAP_PROP_POS_MSEC) / 1000 or number / rate
        if time * fps >= taken - 1e-6 if fps else number % every == 0:
            yield number, time, decode
            taken += 1
    if number < 0.95 * length or not number:  # lengths are estimates of some containers
        yield None, None, refuse


def number_people(faces: pd.DataFrame) -> pd.Series:
    """Number the people of one video from 1: a face goes on as the one whose last box it overlaps most.

    Args:
        faces: frame, time, left, top, width, height; sorted by frame.
    """
    numbers, last, seen = pd.Series(0, faces.index), np.zeros((0, 4)), np.zeros(0)
    times = faces["time"].drop_duplicates()
    patience = max(_APART, 1.5 * times.diff().min()) if len(times) > 1 else _APART
    for time, rows in faces.groupby("time"):
        boxes = rows[BOX].to_numpy(float)
        shared = overlap(boxes[:, None], last[None]) * (time - seen <= patience)
        who = np.full(len(boxes), -1)
        mine, theirs = linear_sum_assignment(-shared)
        good = shared[mine, theirs] > 0.1
        who[mine[good]] = theirs[good]
        new = np.flatnonzero(who < 0)
        who[new] = len(last) + np.arange(len(new))
        last, seen = np.concatenate([last, boxes[new]]), np.concatenate([seen, np.full(len(new), time)])
        last[who], seen[who], numbers[rows.index] = boxes, time, who + 1
    return numbers
