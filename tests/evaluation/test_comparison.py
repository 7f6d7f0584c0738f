"""Models and other programs side by side, from files as these programs write them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from expvqa_lib.data import read_dataset, write_table
from expvqa_lib.data.footage import BOX
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import by_probability, compare, read_faces, read_scored
from expvqa_lib.evaluation.predictions import COLUMNS
from expvqa_lib.pipeline.cli import main

AUS = ("AU1", "AU6", "AU12")
N = 60


@pytest.fixture(scope="module")
def truth():
    """Labels of 60 faces of 12 people, and a noisy probability of each that every program reports its way."""
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.integers(0, 2, (N, 3)), columns=AUS)
    return labels, {
        key: np.clip(labels * 0.5 + rng.random((N, 3)) * 0.6, 0, 1).round(3)
        for key in ("ours", "pyfeat", "openface", "libreface", "score")
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, truth):
    """Pictures, the face table, and a file of each program; their faces and AUs differ."""
    root, (labels, p) = tmp_path_factory.mktemp("own"), truth
    names = [f"{k:02d}.png" for k in range(N)]
    for name in names:
        Image.new("RGB", (8, 8)).save(root / name)
    faces = pd.DataFrame({"image": names, "dataset": "own", "subject": [str(k % 12) for k in range(N)]})
    write_table(faces.assign(frame=names, split="test").join(labels), root / "faces.parquet")

    rows = pd.concat([faces.assign(au=au, p_yes=p["ours"][au]) for au in AUS])
    both = [rows.assign(wording=k, p_yes=rows["p_yes"] + (0.01 if k else -0.01)) for k in (0, 1)]
    rows = pd.concat(both).assign(split="test", question_type="Q3").reindex(columns=list(COLUMNS))
    rows.to_parquet(root / "predictions.parquet")

    box = pd.DataFrame({"input": names, "FaceRectWidth": 50.0, "FaceRectHeight": 50.0, "FaceScore": 0.99})
    feat = pd.concat([box, p["pyfeat"].set_axis(["AU01", "AU06", "AU12"], axis=1)], axis=1)
    smaller = feat.iloc[:5].assign(FaceRectWidth=20.0, AU01=1 - feat["AU01"][:5])  # a second face
    feat = pd.concat([smaller, feat]).sort_values("input", kind="stable")
    feat.loc[feat["input"] == "07.png", ["FaceScore", "AU01", "AU06", "AU12"]] = np.nan  # it found nobody
    feat.to_csv(root / "feat.csv")

    table = pd.DataFrame(
        {"frame": range(N), " face_id": 0, " timestamp": 0.0, " confidence": 0.98, " success": 1}
    )
    table[" AU01_r"], table[" AU12_r"] = 5 * p["openface"]["AU1"], 5 * p["openface"]["AU12"]
    table[" AU12_c"] = (p["openface"]["AU12"] > 0.6).astype(int)
    table.loc[9, " confidence"] = 0.1
    table.to_csv(root / "clip.csv", index=False)

    libre = pd.DataFrame({"input_image_path": names, "facial_expression": "Neutral"})
    for au in (1, 6, 12):
        libre[f"au_{au}"] = (p["libreface"][f"AU{au}"] >= 0.5).astype(int)
        libre[f"au_{au}_intensity"] = 5 * p["libreface"][f"AU{au}"]
    libre.iloc[:50].to_csv(root / "libre.csv", index=False)

    ours = pd.DataFrame({"file": names, "frame": np.nan, "face": 1, "width": 5, "height": 5, "notice": None})
    again = ours.iloc[:3].assign(face=2, width=2).join(1 - p["score"][:3])
    pd.concat([ours.join(p["score"]), again]).to_csv(root / "score.csv", index=False)
    return root


FILES = {
    "ours": ("predictions.parquet", range(N), AUS),
    "pyfeat": ("feat.csv", set(range(N)) - {7}, AUS),
    "openface": ("clip.csv", set(range(N)) - {9}, ("AU1", "AU12")),
    "libreface": ("libre.csv", range(50), AUS),
    "score": ("score.csv", range(N), AUS),
}


@pytest.fixture(scope="module")
def found(folder):
    models = {
        name: read_scored(folder / file, folder, "{frame:02d}.png") for name, (file, *_) in FILES.items()
    }
    return compare(read_faces(folder / "faces.parquet"), models, resamples=50)


@pytest.mark.parametrize("name", FILES)
def test_figures_are_scikit_learns_on_the_faces_that_all_have(found, truth, name):
    rows = [k for k in range(50) if k not in (7, 9)]
    (labels, p), aus = truth, FILES[name][2]
    values = found.table[found.table["model"] == name].set_index(["metric", "target"])["value"]
    expected = {"f1": {}, "auc": {}}
    for au in aus:
        y, score = labels[au][rows], p[name][au][rows]
        least = {("openface", "AU1"): 0.2, ("openface", "AU12"): 0.6001}.get((name, au), 0.5)
        expected["f1"][au] = 100 * f1_score(y, score >= least)
        expected["auc"][au] = 100 * roc_auc_score(y, score)
    for metric, by_au in expected.items():
        assert values[metric].drop("macro").to_dict() == pytest.approx(by_au, abs=1e-6)
        common = np.mean([by_au["AU1"], by_au["AU12"]])  # OpenFace says nothing here of AU6
        assert values[metric, "macro"] == pytest.approx(common, abs=1e-6)
    assert ("calibration_error" in values.index) == (name not in ("openface", "libreface"))
    counts = found.counts.set_index("model").loc[name]
    assert (counts["faces"], counts["compared"]) == (len(FILES[name][1]), 48)


def test_what_was_left_out_is_said_and_others_are_compared_with_the_first(found):
    notes = found.counts.set_index("model")["notes"]
    assert notes["pyfeat"] == "read as Py-Feat, 1 no face, 5 smaller face of its image"
    assert notes["openface"] == "read as OpenFace, 1 confidence too low" and notes["ours"] == ""
    gain = found.differences.set_index(["model", "metric"])
    macro = found.table[found.table["target"] == "macro"].set_index(["model", "metric"])["value"]
    assert len(gain) == 8 and gain["p"].between(0, 1).all() and set(gain["minus"]) == {"ours"}
    for (model, metric), row in gain.iterrows():
        assert row["value"] == pytest.approx(macro[model, metric] - macro["ours", metric], abs=1e-9)
        assert row["low"] <= row["value"] <= row["high"]
    prior = found.table[(found.table["model"] == "prior") & (found.table["metric"] == "auc")]
    assert (prior["value"] == 50).all()


LANDMARKS = {"x_0": 0, "y_19": 1, "x_16": 2, "y_8": 3}  # left, top, right and bottom edge of the face


def face_landmark_img(boxes: list, aus: list) -> pd.DataFrame:
    """What FaceLandmarkImg writes of the faces of one picture."""
    rows = [{"face": k, " confidence": 0.9, " AU12_r": 5 * au, " AU12_c": au} for k, au in enumerate(aus)]
    for row, (left, top, width, height) in zip(rows, boxes, strict=True):
        edges = (left, top, left + width, top + height)
        row |= {f" {name}": edges[k] for name, k in LANDMARKS.items()}
    return pd.DataFrame(rows)


SMALL, LARGE = (10, 10, 20, 20), (60, 10, 90, 90)
PICTURES = {  # boxes and AU12 of the faces that the program found; the labelled one is the small one
    "both.png": ([LARGE, SMALL], [0, 1]),
    "near.png": ([LARGE, (14, 12, 20, 20)], [0, 1]),
    "other.png": ([LARGE], [0]),
    "alone.png": ([SMALL], [1]),
    "dark.png": None,  # it found nobody, and wrote no file
}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Pictures of two faces, a face table with boxes, and what each program writes about them."""
    root = tmp_path_factory.mktemp("crowd")
    (root / "openface").mkdir()
    feat, libre = [], []
    for name, faces in PICTURES.items():
        Image.new("RGB", (8, 8)).save(root / name)
        if faces:
            file = name.replace("png", "csv")
            face_landmark_img(*faces).to_csv(root / "openface" / file, index=False)
            feat += [(name, 0.99, *box, au) for box, au in zip(*faces, strict=True)]
            libre += [(name, au) for au in faces[1]]
    box = ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]
    pd.DataFrame(feat, columns=["input", "FaceScore", *box, "AU12"]).to_csv(root / "feat.csv", index=False)
    score = pd.DataFrame(feat, columns=["file", "notice", *BOX, "AU12"])
    score.assign(frame=None, AU12=0.2 + 0.6 * score["AU12"]).to_csv(root / "score.csv", index=False)
    libre.append(libre[-1])  # as of two files about one picture
    pd.DataFrame(libre, columns=["input_image_path", "au_12"]).to_csv(root / "libre.csv", index=False)
    labels = pd.DataFrame([(name, *SMALL, 1) for name in PICTURES], columns=["image", *BOX, "AU12"])
    labels.to_csv(root / "own.csv", index=False)
    read_dataset("own", root, root / "own.parquet", root / "own.csv")
    return root


@pytest.mark.parametrize(
    ("files", "near", "largest"),
    [
        *(
            (files, {"both": 1, "near": 1, "alone": 1}, {"both": 0, "near": 0, "other": 0, "alone": 1})
            for files in ("openface", "openface/*.csv", "feat.csv", "score.csv")
        ),
        ("libre.csv", *2 * [{"other": 0, "alone": 1}]),  # without boxes, only a face that is alone is taken
    ],
)
def test_of_several_faces_the_labelled_one_is_taken_and_else_the_largest(crowd, files, near, largest):
    for faces, expected in ((read_faces(crowd / "own.parquet"), near), (None, largest)):
        scored = read_scored(crowd / files, crowd, faces=faces)
        answers = scored.answers["AU12"].rename(lambda name: name.removesuffix(".png"))
        assert answers.index.is_unique and answers.to_dict() == expected
        dropped = {True: "3 face that is not the labelled one", False: "2 smaller face of its image"}
        reason = dropped[faces is not None] if files != "libre.csv" else "4 one of several faces"
        assert reason in scored.notes


def test_each_face_that_is_left_out_is_named_with_those_that_lack_it(crowd):
    faces = read_faces(crowd / "own.parquet")
    models = {name: read_scored(crowd / name, crowd, faces=faces) for name in ("openface", "libre.csv")}
    models["ours"] = by_probability(pd.DataFrame({"AU12": 0.9}, faces["name"]))
    found = compare(faces, models, resamples=0)
    missing = {"both.png": "libre.csv", "near.png": "libre.csv", "other.png": "openface"}
    missing["dark.png"] = "openface, libre.csv"
    assert dict(found.left_out.to_numpy()) == missing
    counts = found.counts.set_index("model")
    assert counts["faces"].to_dict() == {"openface": 3, "libre.csv": 2, "ours": 5}
    assert set(counts["compared"]) == {1} and counts.loc["ours", "threshold"] == "P >= 0.5"
    assert counts.loc["openface", "threshold"].endswith("intensity >= 1")
    assert counts.loc["libre.csv", "threshold"].endswith("intensity >= 2")


def test_the_command_writes_tables_and_a_forest_plot(folder, tmp_path, capsys):
    files = [f"{name}={folder / file}" for name, (file, *_) in FILES.items()]
    line = ["compare", *files, "--data", str(folder / "faces.parquet"), "--images", "{frame:02d}.png"]
    assert main([*line, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "read as LibreFace" in said and "minus" in said and "12 faces left out, such as 07.png" in said
    assert pd.read_csv(tmp_path / "left_out.csv")["lacking"].tolist() == ["pyfeat", "openface"] + 10 * [
        "libreface"
    ]
    for stem in ("f1", "auc", "calibration_error", "differences"):
        assert all((tmp_path / f"{stem}{suffix}").stat().st_size for suffix in (".csv", ".md", ".tex"))
    assert "| AU12 |" in (tmp_path / "f1.md").read_text() and "toprule" in (tmp_path / "f1.tex").read_text()
    assert min(Image.open(tmp_path / "comparison.png").size) > 200
    assert set(pd.read_csv(tmp_path / "comparison.csv")["model"]) == {*FILES, "prior"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,smile\n00.png,1\n",
            "found the columns image, smile; expected predictions of expvqa evaluate",
        ),
        ("image,AU2\n00.png,0.5\n", "no action unit that all know"),
        ("image,AU1\nelsewhere.png,0.5\n", "nothing|none is known by all.*other: 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, tmp_path, content, message):
    (tmp_path / "other.csv").write_text(content)
    with pytest.raises(TableError, match=message):
        models = {"ours": read_scored(folder / "predictions.parquet", folder)}
        models["other"] = read_scored(tmp_path / "other.csv", folder)
        compare(read_faces(folder / "faces.parquet"), models)
