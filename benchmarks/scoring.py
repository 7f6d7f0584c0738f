"""Faces a second from a folder or a video to the table, and each step's share. `python benchmarks/scoring.py`

Photographs of 512 px with one face, and a video of them; decoding, finding and scoring are timed in turns, in
one process.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image
from skimage import data

from expvqa_lib.data import find_faces, views
from expvqa_lib.evaluation.scoring import score
from expvqa_lib.expvqa import load


def main(faces: int = 64, rounds: int = 5) -> None:
    """Interleave the steps on pictures and frames, `rounds` times; print median times and shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=rounds)
    rounds, model, photo = parser.parse_args().rounds, load(), Image.fromarray(data.astronaut())
    with TemporaryDirectory() as folder:
        photos, video = Path(folder) / "photos", Path(folder) / "clip.mp4"
        photos.mkdir()
        film = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 25, photo.size)
        for k in range(faces):
            turned = photo.rotate(k % 9 - 4, Image.Resampling.BICUBIC)
            turned.save(photos / f"{k:03d}.jpg", quality=92)
            film.write(np.ascontiguousarray(np.asarray(turned)[:, :, ::-1]))
        film.release()
        kinds = {"photographs": sorted(map(str, photos.iterdir())), "frames": [str(video)]}
        crops = Path(folder) / "crops"
        crops.mkdir()
        for k, view in enumerate(views(kinds["photographs"])):
            find_faces(view.image)[0].image.resize((112, 112)).save(crops / f"{k:03d}.png")
        seen, seconds = {kind: list(views(files)) for kind, files in kinds.items()}, {}
        for _ in range(rounds):
            for kind, files in kinds.items():
                for step, work in {
                    "decoding": lambda files=files: list(views(files)),
                    "finding": lambda kind=kind: [find_faces(view.image) for view in seen[kind]],
                    "scoring": lambda: score(model.model, model.processor, [crops], model.model.config.aus),
                    "end to end": lambda files=files: model.score(files),
                }.items():
                    start = time.perf_counter()
                    work()
                    seconds.setdefault((kind, step), []).append((time.perf_counter() - start) / faces)
    for kind in kinds:
        took = {step: statistics.median(seconds[kind, step]) for _, step in list(seconds)[:4]}
        whole = took.pop("end to end")
        steps = ", ".join(
            f"{step} {1000 * s:.1f} ms ({s / sum(took.values()):.0%})" for step, s in took.items()
        )
        print(f"{kind}: {1 / whole:.1f} faces/s end to end; {steps}")


if __name__ == "__main__":
    main()
