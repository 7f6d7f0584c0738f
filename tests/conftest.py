"""What tests share: a tiny model, its processor, and miniature SynthFACS corpora with their pairs."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # asking a hub must fail at once, not download

import copy

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _tiny():
    from expvqa_lib.model import make_processor
    from tools.base_model.build import Size, build
    from tools.base_model.pretrain import vocabulary_texts
    from tools.base_model.tokenizers import train_tokenizers

    language, qformer = train_tokenizers(vocabulary_texts(n=400), 420)
    widths = {f"{part}_width": 32 for part in ("vision", "qformer", "language")}
    words = {"vocabulary": len(language), "qformer_vocabulary": len(qformer)}
    size = Size(image=48, vision_layers=2, queries=4, heads=2, **widths, **words)
    return build(size), make_processor(language, qformer, size.image, size.queries)


@pytest.fixture(scope="session")
def processor(_tiny):
    return _tiny[1]


@pytest.fixture
def model(_tiny):
    """An untrained InstructBLIP with 4 x 4 patches; a test may change it."""
    return copy.deepcopy(_tiny[0])


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """The face table of three miniature corpora, drawn once."""
    from expvqa_lib.synthfacs import CorpusSizes, make

    sizes = CorpusSizes(lab=(3, 1, 3), wild=(12, 3, 12), emotion=(12, 3, 12), videos=1, image=48)
    return make(tmp_path_factory.mktemp("corpora") / "data", sizes)


@pytest.fixture(scope="session")
def images(faces) -> list[str]:
    """Four of them, which most tests of the model ask about."""
    return faces["image"].iloc[[0, 20, 70, 100]].tolist()


@pytest.fixture(scope="session")
def faces_of(faces):
    """What `pipeline.Run.faces_of` is: the faces of a corpus and split, numbered anew."""

    def select(dataset: str, split: str = "test"):
        return faces[(faces["dataset"] == dataset) & (faces["split"] == split)].reset_index(drop=True)

    return select


@pytest.fixture(scope="session")
def pairs(faces):
    from expvqa_lib.data import pairs

    return pairs.build_pairs(faces, seed=7)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The golden Exp-VQA checkpoint, converted."""
    from released import GOLDEN, OPTIONS

    from expvqa_lib.model.convert import convert_checkpoint

    folder = tmp_path_factory.mktemp("converted") / "exp-vqa"
    return convert_checkpoint(GOLDEN / "exp_vqa_trimmed.pth", folder, **OPTIONS)


@pytest.fixture
def root(tmp_path):
    """Makes one data set in miniature and returns its folder."""

    def make(name: str):
        from corpora_fixtures import BUILDERS

        BUILDERS[name](tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def no_other_server(monkeypatch):
    """No server but the one that a test names, and one more try after a fault."""
    monkeypatch.setattr("expvqa_lib.data.chat.RETRIES", 1)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(tmp_path, monkeypatch, no_other_server):
    """Make a Chat with a server; all share one file of answers."""
    from expvqa_lib.data.chat import Chat

    def connect(server, **settings):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        return Chat("tiny", tmp_path / "new" / "answers.sqlite", **settings)

    return connect


@pytest.fixture(scope="session")
def own(tmp_path_factory, faces):
    """A face table of six faces of three people, with two AUs and emotions."""
    import pandas as pd

    from expvqa_lib.data import load_image, write_table

    root, rows = tmp_path_factory.mktemp("own"), faces[faces["dataset"] == "synth_wild"].head(6)
    for k, image in enumerate(rows["image"]):
        load_image(image).save(root / f"{k}.png")
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(6)], "subject": list("aabbcc")})
    table = table.assign(dataset="own", split="test", frame="0", emotion=rows["emotion"].tolist())
    write_table(table.assign(AU1=[0, 1, 0, 1, 0, 1], AU12=[1, 1, 0, 0, 1, 0]), root / "own.parquet")
    return root / "own.parquet"
