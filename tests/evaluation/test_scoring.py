"""Pictures, folders and videos as people have them, into one table."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from expvqa_lib.data.footage import number_people
from expvqa_lib.data.images import NO_TILT, find_faces
from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import scoring
from expvqa_lib.expvqa import load
from expvqa_lib.pipeline.cli import main
from expvqa_lib.plots import clip_curves
from expvqa_lib.synthfacs import prototype_face, render

QUESTION = "What facial movements of lips can be observed?"
CODES = {".mp4": "mp4v", ".avi": "MJPG", ".mov": "mp4v", ".webm": "VP80"}
FRAMES = 30


@pytest.fixture(scope="module")
def quick():
    return load()


@pytest.fixture(scope="module")
def people():
    """Two different faces, 256 px, whose crops the detector finds."""
    return [render(prototype_face(name, seed), 256).image for seed, name in enumerate(("happiness", "anger"))]


def write_video(path: Path, frames: list[np.ndarray], rate: float = 10.0) -> Path:
    height, width, _ = frames[0].shape
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODES[path.suffix]), rate, (width, height))
    for frame in frames:
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    video.release()
    return path


@pytest.fixture(scope="module")
def frames(people):
    """A wall for a second; then one person; then a second one from the right, who is larger."""
    films = []
    for k in range(FRAMES):
        frame = np.full((400, 640, 3), 120, np.uint8)
        if k >= 10:
            frame[60:316, 20 + 2 * k : 276 + 2 * k] = people[0]
        if k >= 20:
            frame[20:380, 640 - 360 :] = cv2.resize(people[1], (360, 360))
        films.append(frame)
    return films


@pytest.fixture(scope="module")
def folder(tmp_path_factory, people, frames):
    """Pictures with one, two and no faces, a broken one, a crop, others' files, a subfolder and a clip."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "sub" / ".cache").mkdir(parents=True)
    astronaut = Image.fromarray(data.astronaut())
    for name, picture in {
        "a.png": astronaut,
        "b.png": Image.fromarray(np.hstack(people)),
        "c.jpg": Image.fromarray(data.coffee()),
        "d.jpg": Image.fromarray(data.camera()),
        "sub/crop.png": astronaut.crop((150, 45, 300, 195)),
        "sub/.cache/hidden.png": astronaut,
        "._a.png": astronaut,
    }.items():
        picture.save(folder / name)
    (folder / "broken.JPG").write_text("never a picture")
    (folder / "list.txt").write_text("a.png 1")
    write_video(folder / "sub" / "clip.mp4", frames)
    return folder


@pytest.fixture(scope="module")
def table(quick, folder):
    with pytest.warns(UserWarning, match=r"1 other files are not read, such as .*list\.txt"):
        return quick.score(folder, every=5, ask=[QUESTION])


def test_every_face_is_a_row_and_so_is_every_picture_without_one(table, folder):
    names = table["file"].str.removeprefix(f"{folder}/")
    pictures = names[table["time"].isna()]
    assert pictures.tolist() == ["a.png", "b.png", "b.png", "broken.JPG", "c.jpg", "d.jpg", "sub/crop.png"]
    faces, notices = (table.loc[pictures.index, name] for name in ("face", "notice"))
    assert faces.fillna(0).tolist() == [1, 1, 2, 0, 0, 1, 1]
    assert notices.fillna("").tolist()[4:] == ["no face found", NO_TILT, ""]
    assert notices[3].startswith("not a picture") and notices[:3].isna().all()
    assert table["subject"].notna().tolist() == (table["time"].notna() & table["face"].notna()).tolist()
    without = table["face"].isna()
    assert table.loc[without, [QUESTION, "emotion", "AU12", "left"]].isna().all(axis=None)
    assert table.loc[~without, [QUESTION, "emotion", "AU12", "left"]].notna().all(axis=None)


def test_the_scores_and_answers_are_the_model_s_own(quick, table, folder):
    """In the batch of many, as alone, from the same crop."""
    for name, face in (("a.png", 1), ("b.png", 2), ("sub/crop.png", 1)):
        row = table[(table["file"] == f"{folder}/{name}") & (table["face"] == face)].iloc[0]
        found = find_faces(Image.open(folder / name).convert("RGB"))[face - 1]
        expected = quick.aus(found.image, crop=False)
        np.testing.assert_allclose(row[expected.index].astype(float), expected, atol=1e-5)
        assert row[QUESTION] == quick.ask(found.image, QUESTION, crop=False)
        assert (row["left"], row["height"]) == (found.box[0], found.box[3])


def test_people_of_a_video_are_subjects(table, folder):
    clip = table[table["file"] == f"{folder}/sub/clip.mp4"]
    assert clip["frame"].tolist() == [0, 5, 10, 15, 20, 20, 25, 25]
    np.testing.assert_allclose(clip["time"], clip["frame"].astype(float) / 10, atol=1e-6)
    assert clip["face"].fillna(0).tolist() == [0, 0, 1, 1, 1, 2, 1, 2]  # 1 is the largest
    one, two = f"{folder}/sub/clip_1", f"{folder}/sub/clip_2"
    assert clip["subject"].fillna("").tolist() == ["", "", one, one, two, one, two, one]
    fig = clip_curves(clip[clip["subject"] == one])
    assert len(fig.axes) == 1 + table.filter(regex=r"^AU\d+$").shape[1]


@pytest.mark.parametrize("suffix", CODES)
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, range(FRAMES)), ({"every": 7}, range(0, FRAMES, 7)), ({"fps": 2.0}, range(0, FRAMES, 5))],
)
def test_frames_of_every_kind_of_video(tmp_path, frames, suffix, options, expected, monkeypatch, quick):
    path = write_video(tmp_path / f"clip{suffix}", frames)
    monkeypatch.setattr(scoring, "find_faces", lambda image, most: [])
    table = quick.score([path], **options)
    assert table["frame"].tolist() == list(expected)
    np.testing.assert_allclose(table["time"], np.array(expected) / 10, atol=0.05)


def test_a_video_that_ends_early_or_is_none_says_so(tmp_path, frames, monkeypatch, quick):
    whole, cut, none = (tmp_path / name for name in ("a.avi", "b.avi", "c.mp4"))
    write_video(whole, frames)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    none.write_bytes(b"")
    monkeypatch.setattr(scoring, "find_faces", lambda image, most: [])
    table = quick.score(tmp_path).groupby("file")["notice"].agg(["size", "last"])
    assert table.loc[str(whole), "size"] == FRAMES and 1 < table.loc[str(cut), "size"] < FRAMES
    assert "of 30 frames; expected a whole video" in table.loc[str(cut), "last"]
    assert "no frame can be read" in table.loc[str(none), "last"]


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_table(tmp_path, folder, quick, monkeypatch):
    def parts(output, kills: bool = False) -> list:
        calls = []

        def looked(*arguments):
            if kills and len(calls) == 2:
                raise KeyboardInterrupt
            calls.append(arguments)
            return embed(*arguments)

        embed = scoring.embed_images
        with monkeypatch.context() as patch, pytest.warns(UserWarning, match="other files"):
            patch.setattr(scoring, "embed_images", looked)
            quick.score(folder, output=tmp_path / output, every=5, emotion=False)
        return calls

    monkeypatch.setattr(scoring, "PART", 3)
    assert len(parts("whole.csv")) == 4  # of 6 pictures and 6 frames
    with pytest.raises(KeyboardInterrupt):
        parts("killed.csv", kills=True)
    assert not (tmp_path / "killed.csv").exists()
    assert len(parts("killed.csv")) == 2  # nothing is done twice
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"killed.csv", "whole.csv"}


def test_the_command_writes_the_table_and_the_curves(tmp_path, folder, table, capsys):
    for name in ("all.csv", "all.parquet"):
        options = [
            "--every",
            "5",
            "--no-emotion",
            "--aus",
            "AU1",
            "12",
            "--figures",
            str(tmp_path / "curves"),
        ]
        assert main(["score", str(folder), "--output", str(tmp_path / name), *options]) == 0
    said = capsys.readouterr().out
    assert "11 faces in 12 pictures and frames; 3 without a face, 1 cannot be read" in said
    one, other = pd.read_csv(tmp_path / "all.csv"), pd.read_parquet(tmp_path / "all.parquet")
    assert list(one) == list(other) and list(other)[-2:] == ["AU1", "AU12"]
    np.testing.assert_allclose(one["AU12"], other["AU12"].astype(float), atol=1e-4)
    np.testing.assert_allclose(other["AU12"].astype(float), table["AU12"], atol=1e-5)
    for path in (tmp_path / "curves" / "clip_1.png", tmp_path / "curves" / "clip_2.png"):
        assert min(Image.open(path).size) > 100
    assert (
        main(
            [
                "score",
                str(folder / "a.png"),
                str(folder / "b.png"),
                "--output",
                str(tmp_path / "l.csv"),
                "--largest",
            ]
        )
        == 0
    )
    assert pd.read_csv(tmp_path / "l.csv")["notice"].fillna("").tolist()[1].startswith("2 faces found")


def test_patterns_and_files_are_read_once_in_their_order(folder, quick, monkeypatch):
    monkeypatch.setattr(scoring, "find_faces", lambda image, most: [])
    table = quick.score([folder / "c.jpg", f"{folder}/*.png", folder / "a.png"])
    assert [Path(file).name for file in table["file"]] == ["c.jpg", "a.png", "b.png"]


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        (["nowhere"], {}, "nowhere: no picture or video there"),
        (["*.none"], {}, r"\*\.none: no picture or video"),
        (["a.png"], {"every": 0}, "found every 0"),
        (["a.png"], {"fps": -1.0}, "fps -1.0"),
        (["a.png"], {"output": "table.xlsx"}, "table.xlsx: expected a table's name, .csv or .parquet"),
        (["a.png"], {"aus": [99]}, "AU 99 is unknown"),
    ],
)
def test_what_cannot_be_is_refused(folder, quick, monkeypatch, paths, options, message):
    monkeypatch.chdir(folder)
    with pytest.raises(SettingsError, match=message):
        quick.score(paths, **options)


def test_a_person_who_comes_back_after_long_is_another_one():
    times = np.array([0.0, 0.1, 0.2, 9.0])
    faces = pd.DataFrame({"time": times, "left": 0.0, "top": 0.0, "width": 50.0, "height": 50.0})
    assert number_people(faces).tolist() == [1, 1, 1, 2]
    assert number_people(faces.assign(left=[0, 5, 300, 305])).tolist() == [1, 1, 2, 3]
    assert number_people(faces.assign(time=times * 0 + [0, 4, 8, 12])).tolist() == [1, 1, 1, 1]  # sparse
