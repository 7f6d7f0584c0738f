"""Converted folders in use, and files that are refused with nothing executed and nothing written."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from released import GOLDEN, OPTIONS, language_folder
from safetensors.torch import load_file
from transformers import GenerationConfig, InstructBlipForConditionalGeneration

import expvqa_lib as expvqa
from expvqa_lib.errors import ExpVQAError, ModelError
from expvqa_lib.model import convert_checkpoint, export_checkpoint, load_model
from expvqa_lib.model.lavis import read_checkpoint
from expvqa_lib.pipeline.cli import main
from expvqa_lib.training import Recipe, finetune

WHOLE, FZ, EVA = (GOLDEN / f"{n}.pth" for n in ("exp_vqa_trimmed", "exp_vqa_fz_trimmed", "eva_vit_base"))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return torch.load(WHOLE, weights_only=True)["model"]


@pytest.fixture
def refused(tmp_path):
    """Convert, which must fail with a message and leave nothing behind."""

    def convert(match: str, checkpoint, error=ModelError, **options) -> None:
        if isinstance(checkpoint, dict):
            torch.save({"model": checkpoint}, tmp_path / "odd.pth")
            checkpoint = tmp_path / "odd.pth"
        with pytest.raises(error, match=match):
            convert_checkpoint(checkpoint, tmp_path / "refused", **OPTIONS | options)
        assert not (tmp_path / "refused").exists() and not list(tmp_path.glob(".*"))

    return convert


def test_a_converted_folder_answers_scores_explains_and_generates_as_the_reference(folder):
    model, picture = expvqa.load(folder, quiet=True), np.zeros((80, 80, 3), np.uint8)
    assert len(model.ask(picture, "Why?", samples=3)) == 3 and model.notice is None
    assert model.explain(picture, au=12).heat.shape == (56, 56)
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.num_beams, settings.max_length) == (5, 256)
    assert (settings.repetition_penalty, settings.length_penalty) == (1.5, 1.0)
    assert model.processor.tokenizer.pad_token_id == 420 and model.model.config.image_token_index == 421


def test_the_new_rows_of_the_language_model_are_the_mean_of_the_others(folder):
    weights, original = (load_file(place / "model.safetensors") for place in (folder, GOLDEN / "llm"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table, words = weights[f"language_model.{name}"], original[name]
        assert torch.equal(table[:-2], words) and table.dtype == words.dtype
        torch.testing.assert_close(table[-2:], words.mean(0).expand(2, -1))


def test_a_converted_folder_is_fine_tuned_and_goes_back_to_the_authors_format(folder, tmp_path, pairs):
    model, processor = load_model(folder, quiet=True)
    recipe = Recipe(steps=2, images=3, pairs_per_image=3, validate_every=2)
    log = finetune(model, processor, pairs, tmp_path / "tuned", recipe=recipe)
    assert log["loss"].dropna().between(0, 20).all()
    export_checkpoint(tmp_path / "tuned", tmp_path / "tuned.pth")
    again = convert_checkpoint(tmp_path / "tuned.pth", tmp_path / "again", **OPTIONS)
    image, places = pairs["test"]["image"][0], (tmp_path / "tuned", again, folder)
    tuned, back, before = (expvqa.load(place, quiet=True).aus(image, aus=[1, 12, 25]) for place in places)
    assert (tuned - back).abs().max() < 1e-4 < (tuned - before).abs().max()


def test_a_qformer_tokenizer_that_has_dec_already_gives_the_same_folder(folder, tmp_path):
    options = OPTIONS | {"qformer_tokenizer": GOLDEN / "bert_tokenizer_dec"}
    other = convert_checkpoint(WHOLE, tmp_path / "out", **options)
    first, second = (load_model(place, quiet=True)[1].qformer_tokenizer("AU12?") for place in (folder, other))
    assert first["input_ids"] == second["input_ids"]


def test_the_command_line_converts_the_full_size_and_back(tmp_path, capsys):
    out, back = str(tmp_path / "out"), tmp_path / "back.pth"
    given = ["--language-model", str(GOLDEN / "llm"), "--qformer-tokenizer", str(GOLDEN / "bert_tokenizer")]
    assert main(["convert", str(FZ), *given, "--base", str(EVA), "--output", out]) == 1
    assert "do not divide" in capsys.readouterr().err  # the full size has 12 heads, this toy has 4
    convert_checkpoint(FZ, out, **OPTIONS, base=EVA)
    assert main(["convert", out, "--to-lavis", "--output", str(back)]) == 0 and back.is_file()
    assert main(["convert", str(FZ), "--output", str(tmp_path / "other")]) == 1
    assert "--language-model" in capsys.readouterr().err


def test_the_eva_file_is_read_without_what_the_reference_leaves_out(tmp_path):
    more = {"head.weight": torch.zeros(2, 48), "fc_norm.bias": torch.zeros(48)}
    torch.save(torch.load(EVA, weights_only=True) | more, tmp_path / "eva.pth")
    assert read_checkpoint(tmp_path / "eva.pth").keys() == read_checkpoint(EVA).keys()
    full = {f"blocks.{k}.norm1.bias": torch.zeros(1) for k in (38, 39)}
    torch.save(full | {"patch_embed.proj.weight": torch.zeros(1408, 1)}, tmp_path / "full.pth")
    names = {f"visual_encoder.{name}" for name in ("patch_embed.proj.weight", "blocks.38.norm1.bias")}
    assert read_checkpoint(tmp_path / "full.pth").keys() == names


@dataclass
class Malicious:
    """A pickle that would write a file when it is loaded."""

    path: Path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, refused, zipped):
    mark, path = tmp_path / "mark", tmp_path / "bad.pth"
    content = {"model": {"query_tokens": torch.zeros(1)}, "epoch": Malicious(mark)}
    torch.save(content, path) if zipped else path.write_bytes(pickle.dumps(content))
    refused("nothing was executed", path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert mark.read_text() == "executed"  # the file was dangerous indeed


def test_truncated_files_and_files_of_another_kind_are_refused(tmp_path, refused):
    refused(r"nothing\.pth", tmp_path / "nothing.pth")
    for share in (0.0, 0.3, 0.99):
        (tmp_path / "cut.pth").write_bytes(WHOLE.read_bytes()[: int(share * WHOLE.stat().st_size)])
        refused(r"cut\.pth: not a whole checkpoint", tmp_path / "cut.pth")
    for content, found in (({"weights": 3}, "keys weights"), ([1], "list"), ({"model": {}}, "keys model")):
        torch.save(content, tmp_path / "other.pth")
        refused(f"other.pth: found {found}; expected tensors", tmp_path / "other.pth")


def test_missing_surplus_and_wrongly_shaped_tensors_are_all_named(state, refused):
    gone = ["ln_vision.weight", "visual_encoder.blocks.1.attn.v_bias"]
    odd = {name: value for name, value in state.items() if name not in gone}
    odd |= {"surplus.one": torch.zeros(1), "surplus.two": torch.zeros(1), "llm_proj.bias": torch.zeros(7)}
    shape = r"1 of another shape: llm_proj.bias \[7\], expected \[48\]"
    refused(f"2 missing: {', '.join(gone)}; 2 not known: surplus.one, surplus.two; {shape}", odd)
    position = {"visual_encoder.pos_embed": torch.zeros(1, 16, 48)}  # 15 patches are no square
    refused(r"visual_encoder.pos_embed \[1, 16, 48\], expected \[1, 17, 48\]", state | position)
    refused(r"blocks\.5000\.", state | {"visual_encoder.blocks.5000.norm1.weight": torch.zeros(48)})
    gap = {name: value for name, value in state.items() if ".layer.1." not in name}
    refused(r"missing: Qformer\.bert\.encoder\.layer\.1\.", gap)
    state = {name: value for name, value in state.items() if name != "visual_encoder.pos_embed"}
    refused("2 tensors .* visual_encoder.pos_embed, query_tokens", state | {"query_tokens": torch.zeros(6)})
    refused("no vision encoder.*--base", FZ)
    refused("missing .*visual_encoder.pos_embed", FZ, base=FZ)


def test_parts_that_do_not_fit_are_refused(tmp_path, refused):
    wide = language_folder(tmp_path / "wide", 64)
    refused(r"width 64.*llm_proj.weight \[48, 32\], expected \[64, 32\]", WHOLE, language_model=wide)
    refused("no llama model here", WHOLE, language_model=tmp_path)
    refused("type 'instructblip'; expected 'llama'", WHOLE, language_model=expvqa.expvqa.QUICK)
    refused("5 and 4 heads .* do not divide", WHOLE, vision_heads=5)
    refused("4 and 12 heads .* do not divide", WHOLE, qformer_heads=12)
    bert = shutil.copytree(GOLDEN / "bert_tokenizer", tmp_path / "bert")
    (bert / "vocab.txt").write_text((bert / "vocab.txt").read_text() + "surplus\n")
    refused(r"322 tokens with \[DEC\].* 321", WHOLE, qformer_tokenizer=bert)
    refused("a tokenizer cannot be read", WHOLE, qformer_tokenizer=tmp_path / "nowhere")
    (wide / "model.safetensors").write_bytes(b"half")
    shutil.copy(GOLDEN / "llm" / "config.json", wide / "config.json")
    refused("wide: cannot be read", WHOLE, language_model=wide)


def test_a_taken_path_is_left_alone_and_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch, refused):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken.pth").write_text("mine")
    with pytest.raises(ModelError, match="taken: exists already"):
        convert_checkpoint(WHOLE, tmp_path / "taken", **OPTIONS)
    with pytest.raises(ModelError, match="taken.pth: exists already"):
        export_checkpoint(folder, tmp_path / "taken.pth")
    assert (tmp_path / "taken.pth").read_text() == "mine"
    no_room = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(InstructBlipForConditionalGeneration, "save_pretrained", no_room)
    refused("disk is full", WHOLE, error=ExpVQAError)


def test_a_folder_without_a_whole_model_is_not_exported(folder, tmp_path):
    broken, index = tmp_path / "broken", {"weight_map": {"query_tokens": "../secret.safetensors"}}
    half = shutil.copytree(shutil.copytree(folder, broken), tmp_path / "half")
    (half / "model.safetensors").write_bytes(b"half")
    (broken / "model.safetensors").rename(tmp_path / "secret.safetensors")
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    for place, message in (
        (tmp_path, "no instructblip"),
        (GOLDEN / "llm", "expected 'instructblip'"),
        (broken, "missing: .*query_tokens"),  # a file outside the folder is not read
        (half, r"half/model\.safetensors: cannot be read"),
    ):
        with pytest.raises(ModelError, match=message):
            export_checkpoint(place, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
