"""The licensed data sets in miniature, in the layouts in which they are distributed, with rendered faces.

`BUILDERS` makes them by name, as `readers.READERS` calls them; each has enough people for three splits.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from expvqa_lib.data.readers import Reading
from expvqa_lib.data.readers.videos import DISFA_AUS
from expvqa_lib.facs import EMOTIONS
from expvqa_lib.synthfacs import Face, random_expression, random_identity, random_scene, render

AFFECTNET_HEAD = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression"
BP4D_CODED = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24)


@cache
def drawn(k: int) -> tuple[bytes, dict[int, float], str]:
    """One of sixteen rendered faces: JPEG, AU intensities, emotion."""
    rng = np.random.default_rng([11, k])
    emotion, aus, lateral = random_expression(rng, extra=0.2)
    buffer = io.BytesIO()
    face = Face(random_identity(rng), random_scene(rng), aus, lateral)
    Image.fromarray(render(face, 48).image).save(buffer, "JPEG")
    return buffer.getvalue(), aus, emotion


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def put_lines(path: Path, lines: list[str]) -> None:
    put(path, "\n".join([*lines, ""]))


def build_bp4d(root: Path) -> None:
    """Six people, two to test on; a face stays for two frames. AU24 of frame 2 and all of the last are 9."""
    coded_in = [BP4D_CODED, BP4D_CODED[:-1], *[BP4D_CODED] * 3, ()]
    for n, subject in enumerate(("F001", "M007", "M011", "F003", "F007", "F015")):
        lines, digits = [",".join(map(str, range(30)))], 3 if subject[0] == "M" else 4
        for k, coded in enumerate(coded_in):
            jpeg, aus, _ = drawn((n * 3 + k // 2) % 16)
            frame = 2440 + k if n < 3 else 98 + k
            codes = [int(au in aus) if au in coded else 9 for au in range(1, 30)]
            lines.append(",".join(map(str, [frame, *codes])))
            put(root / "Sequences_2D+3D" / subject / "T1" / f"{frame:0{digits}d}.jpg", jpeg)
        put_lines(root / "AUCoding" / "AU_OCC" / f"{subject}_T1.csv", lines)


def build_disfa(root: Path, first_image: int = 1) -> None:
    """Six people; intensities 0 to 5."""
    for n in range(6):
        subject, lines = f"SN{n + 1:03d}", {au: [] for au in DISFA_AUS}
        for k in range(6):
            jpeg, aus, _ = drawn((n * 3 + k // 2) % 16)
            for au in DISFA_AUS:
                lines[au].append(f"{k + 1},{round(5 * aus.get(au, 0))}")
            put(root / "Images" / subject / f"{k + first_image:05d}.jpg", jpeg)
        for au in DISFA_AUS:
            put_lines(root / "ActionUnit_Labels" / subject / f"{subject}_au{au}.txt", lines[au])


def build_raf_au(root: Path) -> None:
    """24 pictures, every fifth one-sided somewhere, the last without an AU."""
    lines = []
    for k in range(24):
        jpeg, aus, _ = drawn(k % 16)
        codes = "+".join(map(str, [*sorted(aus), *([32] if k == 3 else [])]))
        codes = f"L{codes}" if codes and k % 5 == 0 else codes
        lines.append(f"{k:04d}.jpg {codes if k < 23 and codes else 'null'} ")
        put(root / "aligned" / f"{k:04d}_aligned.jpg", jpeg)
    put_lines(root / "RAFAU_label.txt", lines)


def build_emotionet(root: Path) -> None:
    """24 pictures; AU5 is not annotated in every fourth."""
    lines = ["URL,URL orig," + ",".join(f"'AU {au}'" for au in range(1, 61))]
    for k in range(24):
        jpeg, aus, _ = drawn(k % 16)
        name = f"{k % 2:06d}/N_{k:010d}_00001.jpg"
        codes = ["999" if au > 28 or (au == 5 and k % 4 == 0) else str(int(au in aus)) for au in range(1, 61)]
        lines.append(",".join([f"'http://example.org/data/{name}','http://example.org/{k}.jpg'", *codes]))
        put(root / "images" / name, jpeg)
    put_lines(root / "EmotioNet_FACS_aws_2020_24600.csv", lines)


def build_affectnet(root: Path) -> None:
    """24 pictures to train on, 8 to test on, and three of each without an emotion."""
    for name, size in (("training", 24), ("validation", 8)):
        lines = [f"{AFFECTNET_HEAD},valence,arousal"]
        for k in range(size + 3):
            jpeg, _, emotion = drawn(k % 16)
            code = list(EMOTIONS).index(emotion) if k < size else 8 + k - size
            image = f"{k % 3 + 1}/{name[:2]}{k:08x}.jpg"
            lines.append(f"{image},10,10,80,80,1.0;2.0;3.0;4.0,{code},0.1,-0.1")
            put(root / "Manually_Annotated_Images" / image, jpeg)
        put_lines(root / "Manually_Annotated_file_lists" / f"{name}.csv", lines)


def build_affectnet_arrays(root: Path) -> None:
    """The later layout: an array file a picture, as text in the training set and else as a number."""
    for folder, size in (("train_set", 24), ("val_set", 8)):
        for k in range(size):
            jpeg, _, emotion = drawn(k % 16)
            code, file = list(EMOTIONS).index(emotion), root / folder / "annotations" / f"{k}_exp.npy"
            put(file, "")
            np.save(file, np.array(str(code) if folder == "train_set" else code))
            put(root / folder / "images" / f"{k}.jpg", jpeg)


def build_raf_db(root: Path, kind: str = "compound") -> None:
    """20 pictures to train on and 6 to test on."""
    lines = []
    for part, size in (("train", 20), ("test", 6)):
        for k in range(size):
            name = f"{part}_{k + 1:04d}"
            lines.append(f"{name}.jpg {k % (11 if kind == 'compound' else 7) + 1}")
            for image in (f"aligned/{name}_aligned.jpg", f"original/{name}.jpg"):
                put(root / kind / "Image" / image, drawn(k % 16)[0])
    put_lines(root / kind / "EmoLabel" / "list_patition_label.txt", lines)


BUILDERS = {
    "BP4D": build_bp4d,
    "DISFA": build_disfa,
    "RAF-AU": build_raf_au,
    "EmotioNet": build_emotionet,
    "AffectNet": build_affectnet,
    "RAF-DB": build_raf_db,
    "RAF-DB-basic": lambda root: build_raf_db(root, "basic"),
}


def by_image(reading: Reading) -> pd.DataFrame:
    return reading.table.assign(name=reading.table["image"].str.rpartition("/")[2]).set_index("name")


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
