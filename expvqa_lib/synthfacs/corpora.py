"""Three SynthFACS corpora in the shapes of the real ones; identities never cross the splits.

- `synth_lab`: subjects, videos and frames, BP4D's 12 AUs with intensities (like BP4D, DISFA, GFT);
- `synth_wild`: single pictures, every AU that can be drawn, and the emotion (like RAF-AU);
- `synth_emotion`: single pictures, 8 emotions and no AU label (like AffectNet).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..data import table as face_table
from ..errors import SettingsError
from ..facs import ACTION_UNITS, BP4D_AUS, EMOTIONS
from ..files import atomic, fingerprint, write_json
from .face import AUS, Face, Identity, Scene, random_identity, random_scene
from .render import render

PRESENT = 0.35
"""Intensity from which an AU counts as present; below it a frame shows a trace and is labelled absent."""

VERSION = 3
"""Raised whenever the same settings draw other faces."""

VIDEO_FRAMES, SAMPLED_EVERY, ONSET = (
    120,
    10,
    5,
)  # frames; an AU takes ONSET frames to its apex and as many back

_POSE = ("yaw", "pitch", "roll", "scale", "shift_x", "shift_y")

_CONFLICTS = (
    {
        frozenset(pair)
        for group in (
            (18, 20, 22, 27, 28),
            (22, 23, 27),
            (24, 22, 27, 28),
            (26, 27),
            (43, 5),
            (43, 7),
            (12, 15),
            (19, 28),
            (19, 24),
        )
        for pair in ((a, b) for a in group for b in group if a != b)
        if set(pair) not in ({5, 7},)
    }
    | {frozenset((closing, opening)) for closing in (24, 28) for opening in (16, 25, 26)}
    | {frozenset((28, 10))}
)
"""AUs that do not go together in one drawn face: opposite pulls, or lips both closed and open."""


@dataclass(frozen=True)
class CorpusSizes:
    """Subjects of the lab corpus (each with `videos` videos of 12 sampled frames) and pictures of the others, a split each."""

    lab_train: int = 220
    lab_validation: int = 8
    lab_test: int = 24
    videos: int = 2
    wild_train: int = 1200
    wild_validation: int = 80
    wild_test: int = 160
    emotion_train: int = 900
    emotion_validation: int = 80
    emotion_test: int = 600
    image: int = 96  # pixels
    seed: int = 42


def random_expression(
    rng: np.random.Generator, *, mixed: float = 0.0, extra: float = 0.04
) -> tuple[str, dict[int, float], dict[int, float]]:
    """Draw an emotion and its AUs: the FACS prototype with AUs dropped and added.

    Args:
        mixed: chance of no prototype at all but AUs put together by chance (so that AUs do not give each other away).
        extra: chance of each further AU.

    Returns:
        The emotion, AU intensities in [0.6, 1], and their sides (-1 to 1; contempt is one-sided).
    """
    emotion = str(rng.choice(list(EMOTIONS)))
    is_mixed = rng.random() < mixed
    wanted: list[int] = []
    if not is_mixed:
        core = list(EMOTIONS[emotion].prototype)
        keep = [au for au in core if rng.random() < 0.85]
        wanted = keep if len(keep) >= min(2, len(core)) else core
    chance = 0.5 if is_mixed else extra * (emotion != "neutral" or 0.5)
    added = [
        au
        for au in rng.permutation(AUS).tolist()
        if au not in wanted and rng.random() < (chance if au in BP4D_AUS else 0.3 * chance)
    ]
    aus: dict[int, float] = {}
    for au in wanted + added:
        if all(frozenset((au, other)) not in _CONFLICTS for other in aus):
            aus[au] = float(rng.uniform(0.6, 1.0))
    if {26, 27} & set(aus):
        aus.setdefault(25, 0.7)
    lateral = {au: float(np.clip(rng.normal(0, 0.15), -0.4, 0.4)) for au in aus}
    if emotion == "contempt" and not is_mixed:
        side = float(rng.choice([-1.0, 1.0])) * 0.85
        lateral |= {au: side for au in (12, 14) if au in aus}
    return emotion, aus, lateral


def _video(rng: np.random.Generator, identity) -> list[tuple[int, Face]]:
    """Sampled frames of one video: two expressions one after the other, each AU with its own onset and offset; the head drifts."""
    first, last = random_scene(rng), random_scene(rng)
    scenes = {
        k: getattr(first, k) for k in ("light_x", "light_y", "exposure", "noise", "background", "clothes")
    }
    programme = []
    for start in (0, VIDEO_FRAMES // 2):
        _, aus, lateral = random_expression(rng, mixed=0.7, extra=0.2)
        for au, peak in aus.items():
            onset = start + rng.uniform(0, 12)
            programme.append((au, peak, lateral[au], onset, start + VIDEO_FRAMES / 2 - rng.uniform(0, 12)))
    frames = []
    for t in range(SAMPLED_EVERY // 2, VIDEO_FRAMES, SAMPLED_EVERY):
        share = 0.5 * t / VIDEO_FRAMES
        pose = {k: (1 - share) * getattr(first, k) + share * getattr(last, k) for k in _POSE}
        aus, lateral = {}, {}
        for au, peak, side, onset, offset in programme:
            ramp = min((t - onset) / ONSET, (offset - t) / ONSET, 1.0)
            if ramp > 0.05:
                aus[au], lateral[au] = round(peak * ramp, 3), side
        frames.append(
            (t, Face(identity, Scene(**pose, **scenes, seed=int(rng.integers(2**31))), aus, lateral))
        )
    return frames


def sequence(
    identity: Identity, programme: Mapping[int, tuple[float, float, float]], frames: int, seed: int = 0
) -> list[Face]:
    """One person over time: action units rise smoothly and fall again while the head drifts. Nothing is drawn yet: `render` does.

    Args:
        programme: for each AU the frames where it begins and ends, and its intensity in the middle, in (0, 1].
        frames: how many.
        seed: of the view.

    Raises:
        SettingsError: there is no frame, an AU cannot be drawn, or it ends before it begins.
    """
    if frames < 1 or any(end <= begin for begin, end, _ in programme.values()):
        raise SettingsError(
            f"{frames} frames, {dict(programme)}: expected at least 1 frame, and an end after the beginning of each AU"
        )
    rng = np.random.default_rng(seed)
    first, last = random_scene(rng, 0.5), random_scene(rng, 0.5)
    faces = []
    for t in range(frames):
        share = t / max(1, frames - 1)
        pose = {k: (1 - share) * getattr(first, k) + share * getattr(last, k) for k in _POSE}
        done = {au: (t - begin) / (end - begin) for au, (begin, end, _) in programme.items()}
        strengths = {
            au: programme[au][2] * np.sin(np.pi * share) ** 2 for au, share in done.items() if 0 < share < 1
        }
        aus = {au: round(float(strength), 3) for au, strength in strengths.items() if strength >= 0.001}
        faces.append(Face(identity, replace(first, **pose, seed=int(rng.integers(2**31))), aus))
    return faces


def _rows(job: tuple) -> list[dict]:
    """Draw one unit of a corpus (a lab subject, or one picture) into `folder`; return its rows of the face table."""
    corpus, split, number, sizes, folder = job
    rng = np.random.default_rng(
        [
            VERSION,
            sizes["seed"],
            ("lab", "wild", "emotion").index(corpus),
            face_table.SPLITS.index(split),
            number,
        ]
    )
    identity = random_identity(rng)
    subject = f"{split[:2]}{number:05d}"
    if corpus == "lab":
        shots = [
            (f"v{v}_{t:03d}", face, None) for v in range(sizes["videos"]) for t, face in _video(rng, identity)
        ]
        labelled: tuple[int, ...] = BP4D_AUS
    else:
        emotion, aus, lateral = random_expression(rng, extra=0.10 if corpus == "wild" else 0.04)
        shots = [("0", Face(identity, random_scene(rng, 1.2), aus, lateral), emotion)]
        labelled = AUS if corpus == "wild" else ()
    rows = []
    for frame, face, emotion in shots:
        name = f"{corpus}/{split}/{subject}_{frame}.png"
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = render(face, sizes["image"])
        Image.fromarray(drawn.image).save(path, compress_level=1)
        row = {
            "image": name,
            "dataset": f"synth_{corpus}",
            "subject": subject,
            "frame": frame,
            "split": split,
            "emotion": emotion,
        }
        for au in labelled:
            row[f"AU{au}"] = int(face.aus.get(au, 0.0) >= PRESENT)
            row[f"AU{au}_intensity"] = face.aus.get(au, 0.0)
        rows.append(row | {"face": face.to_json(), "landmarks": drawn.landmarks.ravel().tolist()})
    return rows


def make(folder: str | Path, sizes: CorpusSizes = CorpusSizes()) -> pd.DataFrame:
    """Draw the three corpora into `folder` (once: a finished folder of the same settings is read back) and return their face table.

    The table also has `face` (everything needed to draw it again, see `faces.Face`) and `landmarks` (x, y pairs in pixels).

    Raises:
        SettingsError: the folder holds something else, which drawing would replace.
    """
    folder = Path(folder)
    settings = asdict(sizes) | {"version": VERSION}
    mark, parquet = folder / f"{fingerprint(settings)}.json", folder / "faces.parquet"
    if mark.exists() and parquet.exists():
        return face_table.read_table(parquet)
    if folder.exists() and not parquet.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(
            f"{folder}: not a SynthFACS folder, and drawing would replace it; choose a new or an empty folder"
        )
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        jobs = [
            (corpus, split, k, asdict(sizes), str(temporary))
            for corpus in ("lab", "wild", "emotion")
            for split in face_table.SPLITS
            for k in range(getattr(sizes, f"{corpus}_{split}"))
        ]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            try:
                drawn = tqdm(pool.map(_rows, jobs, chunksize=4), total=len(jobs), desc="drawing faces")
                rows = [row for unit in drawn for row in unit]
            except BaseException:
                pool.shutdown(cancel_futures=True)  # else Ctrl-C waits until all of them are drawn
                raise
        face_table.write_table(pd.DataFrame(rows), temporary / "faces.parquet")
        write_json(temporary / mark.name, settings)
    return face_table.read_table(parquet)


def drawn_aus(row) -> list[int]:
    """Return the AUs that are drawn in a row of the table, at any intensity."""
    return [au for au in Face.from_json(row["face"]).aus if au in ACTION_UNITS]
