"""Three SynthFACS corpora in the shapes of the real ones; identities never cross the splits.

- `synth_lab`: subjects, videos and frames, BP4D's 12 AUs with intensities (like BP4D and DISFA);
- `synth_wild`: single pictures, every AU that can be rendered, and the emotion (like RAF-AU);
- `synth_emotion`: single pictures, 8 emotions and no AU label (like AffectNet).
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..errors import SettingsError
from ..facs import ACTION_UNITS, BP4D_AUS, EMOTIONS
from ..files import atomic, fingerprint
from .expression import AUS
from .identity import Identity, random_identity
from .render import Face, Scene, random_scene, render

PRESENT = 0.35
"""Intensity from which an AU counts as present; below it a frame shows a trace and is labelled absent."""

VERSION = 4
"""Raised whenever the same settings draw other faces."""

CORPORA = {"lab": BP4D_AUS, "wild": AUS, "emotion": ()}  # and the AUs that each is labelled with
_SPLITS = ("train", "validation", "test")
_CONFLICTS = (  # of each group one AU at most: opposite pulls, or lips both closed and open
    *({18, 20, 22, 27, 28}, {22, 23, 27}, {24, 10, 22, 27, 28}, {26, 27}, {43, 5}, {43, 7}, {12, 15}),
    *({19, 24}, {19, 28}, {24, 16}, {24, 25}, {24, 26}, {28, 10}, {28, 16}, {28, 25}, {28, 26}),
)
VARIANTS = {  # of prototypes, with parted lips or without: FACS Investigator's Guide (Ekman et al. 2002)
    "happiness": ((6, 12, 25, 26), (12, 25), (6, 12)),
    "sadness": ((1, 4, 15), (1, 4, 11, 25)),
    "surprise": ((1, 2, 5, 25, 27), (1, 2, 25, 26)),
    "fear": ((1, 2, 4, 5, 25, 26), (1, 2, 4, 5, 20, 25, 27)),
    "disgust": ((9, 16, 25, 26), (10, 16, 25), (9, 17)),
    "anger": ((4, 5, 7, 10, 23, 25, 26), (4, 7, 10, 16, 25, 26), (4, 5, 7, 17, 24)),
    "contempt": ((14,),),
}


@dataclass(frozen=True)
class CorpusSizes:
    """Subjects of the lab corpus (`videos` videos each, of 12 sampled frames) and pictures of the others, for
    training, validation and test."""

    lab: tuple[int, int, int] = (110, 8, 24)
    wild: tuple[int, int, int] = (5000, 80, 160)
    emotion: tuple[int, int, int] = (150, 80, 600)
    videos: int = 2
    image: int = 96  # pixels
    seed: int = 42


def random_expression(
    rng: np.random.Generator, *, mixed: float = 0.0, extra: float = 0.04
) -> tuple[str, dict[int, float], dict[int, float]]:
    """Draw an emotion and its AUs: the FACS prototype with AUs dropped and added.

    Args:
        mixed: chance of random AUs instead of a prototype (so that AUs do not give each other away).
        extra: chance of each further AU.

    Returns:
        The emotion, AU intensities in [0.6, 1], and their sides (-1 to 1; contempt is one-sided).
    """
    emotion, is_mixed = str(rng.choice(list(EMOTIONS))), rng.random() < mixed
    cores = [EMOTIONS[emotion].prototype, *VARIANTS.get(emotion, ())]
    core = [] if is_mixed else list(cores[rng.integers(len(cores))])
    wanted = [au for au in core if rng.random() < 0.85]
    wanted = wanted if len(wanted) >= min(2, len(core)) else core
    chance = 0.5 if is_mixed else extra / 2 if emotion == "neutral" else extra
    added = [
        au
        for au in rng.permutation(AUS).tolist()
        if au not in wanted and rng.random() < (chance if au in BP4D_AUS else 0.3 * chance)
    ]
    aus = {}
    for au in wanted + added:
        if not any(au in group and group & aus.keys() for group in _CONFLICTS):
            aus[au] = float(rng.uniform(0.6, 1.0))
    if {10, 16, 19, 22, 26, 27} & set(aus):  # as FACS scores: whatever parts the lips
        aus.setdefault(25, 0.6)
    lateral = {au: float(np.clip(rng.normal(0, 0.15), -0.4, 0.4)) for au in aus}
    if emotion == "contempt" and not is_mixed:
        lateral |= dict.fromkeys({12, 14} & set(aus), float(rng.choice([-1.0, 1.0])) * 0.85)
    return emotion, aus, lateral


def sequence(
    identity: Identity, programme: dict[int, tuple[float, float, float]], frames: int, seed: int = 0
) -> list[Face]:
    """Return one person over time, a face a frame: AUs rise smoothly and fall again while the head drifts.

    Args:
        programme: for each AU the frames where it begins and ends, and its intensity in the middle (0 to 1].
        frames: how many.
        seed: of the view.
    """
    rng, t = np.random.default_rng(seed), np.arange(frames)
    moves = [
        (au, 0.0, peak * np.sin(np.pi * np.clip((t - begin) / (end - begin), 0, 1)) ** 2)
        for au, (begin, end, peak) in programme.items()
    ]
    return _film(identity, random_scene(rng, 0.5), random_scene(rng, 0.5), t / (frames - 1), moves)


def _video(rng: np.random.Generator, identity: Identity) -> list[tuple[int, Face]]:
    """Every tenth of 120 frames of two expressions, each AU with its own onset and offset."""
    first, last, moves, t = *(random_scene(rng, 0.4) for _ in range(2)), [], np.arange(5, 120, 10)  # studio
    for start in (0, 60):
        _, aus, lateral = random_expression(rng, mixed=0.7, extra=0.2)
        for au, peak in aus.items():
            onset, offset = start + rng.uniform(0, 12), start + 60 - rng.uniform(0, 12)
            ramp = np.minimum(np.minimum(t - onset, offset - t) / 5, 1.0)  # 5 frames to the apex and from it
            moves.append((au, lateral[au], np.where(ramp > 0.05, peak * ramp, 0.0)))
    return list(zip(t.tolist(), _film(identity, first, last, t / 240, moves), strict=True))


def _film(
    identity: Identity,
    first: Scene,
    last: Scene,
    drift: np.ndarray,
    moves: list[tuple[int, float, np.ndarray]],
) -> list[Face]:
    """A face a frame: `drift` [T] (0 to 1) is the pose between the scenes; moves are AU, side, course [T]."""
    faces, (start, end) = [], np.array([(scene.pose, scene.framing) for scene in (first, last)])
    for k, share in enumerate(drift.tolist()):
        pose, framing = map(tuple, ((1 - share) * start + share * end).tolist())
        acting = {au: (round(float(course[k]), 3), side) for au, side, course in moves if course[k] >= 0.001}
        aus, lateral = ({au: pair[part] for au, pair in acting.items()} for part in (0, 1))
        faces.append(Face(identity, replace(first, pose=pose, framing=framing), aus, lateral))
    return faces


def prototype_face(emotion: str, seed: int) -> Face:
    """A random person who shows the prototype that FACS gives an emotion, from the front."""
    return Face(
        random_identity(np.random.default_rng(seed)), aus=dict.fromkeys(EMOTIONS[emotion].prototype, 0.9)
    )


def example_photos() -> Path:
    """Write a folder: pictures of one, two and no faces, text that is called a picture, a smile of 2 s."""
    folder, emotions = Path(tempfile.mkdtemp(prefix="expvqa-")), ("happiness", "surprise", "anger")
    one, two, three = (render(prototype_face(name, seed), 384).image for seed, name in enumerate(emotions))
    files = {"portrait.png": one, "together.jpg": np.hstack([two, three]), "sky.jpg": np.full_like(one, 200)}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.jpg").write_text("This was never a picture.")
    who = random_identity(np.random.default_rng(5))
    clip = cv2.VideoWriter(str(folder / "smile.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (256, 256))
    for face in sequence(who, {12: (3, 22, 1.0), 6: (5, 20, 0.9), 25: (6, 18, 0.6)}, 24):
        clip.write(np.ascontiguousarray(render(face, 256).image[:, :, ::-1]))
    clip.release()
    return folder


def make(folder: str | Path, sizes: CorpusSizes = CorpusSizes()) -> pd.DataFrame:
    """Draw the three corpora into `folder`, unless they are there, and return their face table.

    Further columns are `face` (for `Face.from_json`) and `landmarks` (x, y pairs in pixels).

    Raises:
        SettingsError: the folder holds something else, which drawing would replace.
    """
    folder = Path(folder)
    mark = folder / f"{fingerprint(asdict(sizes) | {'version': VERSION})}.json"
    if not mark.exists():
        if folder.exists() and any(folder.iterdir()) and not (folder / "faces.parquet").exists():
            raise SettingsError(
                f"{folder}: not a SynthFACS folder, drawing would replace it; choose a new or an empty folder"
            )
        with atomic(folder) as temporary:
            _draw(temporary, sizes).to_parquet(temporary / "faces.parquet", index=False)
            (temporary / mark.name).write_text(json.dumps(asdict(sizes), indent=1) + "\n")
    table = pd.read_parquet(folder / "faces.parquet")
    return table.assign(image=f"{folder.resolve()}/" + table["image"])


def on_all_cores(work: Callable, jobs: list, chunk: int = 1) -> Iterator:
    """Yield what `work` returns for each job, a process a core, `chunk` jobs at a time.

    Each keeps to one thread, else they wait for each other; to limit them after the fork would hang.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with threadpool_limits(1), ProcessPoolExecutor() as pool:
        try:
            yield from tqdm(pool.map(work, jobs, chunksize=chunk), total=len(jobs), desc="rendering faces")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C waits until all of them are drawn
            raise
        finally:
            cv2.setNumThreads(threads)


def _draw(folder: Path, sizes: CorpusSizes) -> pd.DataFrame:
    """Draw all pictures on all processors; the face table, typed, with every AU's column."""
    jobs = [
        (corpus, split, number, sizes, folder)
        for corpus in CORPORA
        for split, count in zip(_SPLITS, getattr(sizes, corpus), strict=True)
        for number in range(count)
    ]
    table = pd.DataFrame([row for unit in on_all_cores(_draw_rows, jobs, 4) for row in unit])
    types = {unit.name: "Int8" for unit in ACTION_UNITS.values()} | {
        "emotion": "string",
        "labelled_by": "string",
    }
    return table.reindex(columns=list(dict.fromkeys([*table, *types]))).astype(types)


def _draw_rows(job: tuple[str, str, int, CorpusSizes, Path]) -> list[dict]:
    """Draw one unit of a corpus (a lab subject, or one picture) into the folder; return its rows."""
    corpus, split, number, sizes, folder = job
    rng = np.random.default_rng([VERSION, sizes.seed, [*CORPORA].index(corpus), _SPLITS.index(split), number])
    identity, is_wild = random_identity(rng), corpus == "wild"
    if corpus == "lab":
        shots = [
            (f"v{v}_{t:03d}", face, None) for v in range(sizes.videos) for t, face in _video(rng, identity)
        ]
    else:
        emotion, *actions = random_expression(rng, extra=0.10 if is_wild else 0.04)
        shots = [("0", Face(identity, random_scene(rng, 1.2 if is_wild else 0.7), *actions), emotion)]
    (folder / corpus / split).mkdir(parents=True, exist_ok=True)
    rows, subject = [], f"{split[:2]}{number:05d}"
    for frame, face, emotion in shots:
        name, drawn = f"{corpus}/{split}/{subject}_{frame}.png", render(face, sizes.image)
        Image.fromarray(drawn.image).save(folder / name, compress_level=1)
        rows.append(
            {
                "image": name,
                "dataset": f"synth_{corpus}",
                "subject": subject,
                "frame": frame,
                "split": split,
                "emotion": emotion,
                **{f"AU{au}": int(face.aus.get(au, 0.0) >= PRESENT) for au in CORPORA[corpus]},
                **{f"AU{au}_intensity": face.aus.get(au, 0.0) for au in CORPORA[corpus]},
                "face": face.to_json(),
                "landmarks": drawn.landmarks.ravel().tolist(),
            }
        )
    return rows
