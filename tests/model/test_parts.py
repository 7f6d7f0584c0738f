"""Model folders with damaged files, or with parts of different models, are refused and the part is named."""

import json
import shutil
from pathlib import Path

import pytest
from released import GOLDEN, OPTIONS

from expvqa_lib.errors import ModelError
from expvqa_lib.expvqa import QUICK
from expvqa_lib.model import convert_checkpoint, load_model

DAMAGES = {
    "Git LFS pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "web page": lambda content: b"<!DOCTYPE html>\n<html><title>Sign in</title></html>",
    "empty file": lambda content: b"",
    "nothing but zeros": lambda content: bytes(len(content)),
    "cut short": lambda content: content[: len(content) // 2],
}
FILES = [
    str(path.relative_to(QUICK)) for path in QUICK.rglob("*") if path.suffix in (".json", ".safetensors")
]
INPUTS = {
    "checkpoint": GOLDEN / "exp_vqa_trimmed.pth",
    "language_model": GOLDEN / "llm" / "model.safetensors",
    "qformer_tokenizer": GOLDEN / "bert_tokenizer" / "vocab.txt",
}


@pytest.fixture
def mine(tmp_path) -> Path:
    return shutil.copytree(QUICK, tmp_path / "mine")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_model_folder_is_named(mine, name, damage):
    (mine / name).write_bytes(DAMAGES[damage]((mine / name).read_bytes()))
    with pytest.raises(ModelError, match=f"mine: .*{name} is .*{damage}"):
        load_model(mine, quiet=True)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", INPUTS)
def test_a_damaged_input_of_a_conversion_is_named(tmp_path, part, damage):
    given = {"checkpoint": INPUTS["checkpoint"], **OPTIONS}
    folder = given[part] if given[part].is_dir() else given[part].parent
    file = tmp_path / "given" / INPUTS[part].name
    shutil.copytree(folder, file.parent)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    given[part] = file if part == "checkpoint" else file.parent
    found = "tokens" if part == "qformer_tokenizer" and damage == "cut short" else damage
    with pytest.raises(ModelError, match=f"given.*{found}"):
        convert_checkpoint(output=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def set_keys(file: str, **values):
    def write(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | values))

    return write


def replace_tokenizer(source: Path, name: str = ""):
    def copy(folder: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, folder / name / file)

    return copy


IMAGES = json.loads((QUICK / "processor_config.json").read_text())["image_processor"]
SMALL = IMAGES | {"size": {"height": 48, "width": 48}}
MIXED = {  # without a tokenizer transformers would make one that knows no word, or read the other's
    "qformer_tokenizer.*missing": lambda folder: shutil.rmtree(folder / "qformer_tokenizer"),
    "qformer_tokenizer.*language model's": replace_tokenizer(QUICK, "qformer_tokenizer"),
    "the tokenizer is another model's": replace_tokenizer(QUICK / "qformer_tokenizer"),
    "48 x 48 pixels.* 96 x 96": set_keys("processor_config.json", image_processor=SMALL),
    "num_query_tokens is 5 .* 8": set_keys("processor_config.json", num_query_tokens=5),
    "image_token_index of config.json is 9999": set_keys("config.json", image_token_index=9999),
    "none of tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
    "processor": lambda folder: (folder / "processor_config.json").unlink(),
}


@pytest.mark.parametrize("message", MIXED)
def test_parts_that_do_not_belong_together_are_refused(mine, message):
    MIXED[message](mine)
    with pytest.raises(ModelError, match=f"mine: .*{message}"):
        load_model(mine, quiet=True)


@pytest.mark.parametrize("name", ["tokenizer", "qformer_tokenizer"])
@pytest.mark.parametrize("rows", [-1, 400])
def test_a_tokenizer_larger_than_its_embedding_or_far_smaller_is_refused(mine, name, rows):
    part = "text_config" if name == "tokenizer" else "qformer_config"
    sizes = json.loads((mine / "config.json").read_text())[part]
    set_keys("config.json", **{part: sizes | {"vocab_size": sizes["vocab_size"] + rows}})(mine)
    with pytest.raises(ModelError, match=f"mine: .*the {name} is another model's"):
        load_model(mine, quiet=True)
