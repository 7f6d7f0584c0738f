"""Converted folders in use, and files that are refused with nothing executed and nothing written."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from released import GOLDEN, OPTIONS, language_folder
from safetensors.torch import load_file
from transformers import InstructBlipForConditionalGeneration

import expvqa_lib as expvqa
from expvqa_lib.errors import ExpVQAError, ModelError, SettingsError
from expvqa_lib.model import convert_checkpoint, export_checkpoint, lavis
from expvqa_lib.model.load import load_model
from expvqa_lib.pipeline.cli import main
from expvqa_lib.training.finetune import finetune
from expvqa_lib.training.recipe import Recipe

# ------------------------------------------------------------------------------------------------------------- the flow


def test_a_converted_folder_answers_scores_explains_and_is_a_plain_transformers_model(folder):
    model = expvqa.load(folder, quiet=True)
    picture = torch.zeros(80, 80, 3, dtype=torch.uint8).numpy()
    assert isinstance(model.ask(picture, "AU12?"), str) and model.notice is None
    assert len(model.ask(picture, "Why?", samples=3)) == 3
    assert model.aus(picture, aus=[1, 12]).between(0, 1).all()
    assert model.explain(picture, au=12).heat.shape == (56, 56)
    settings = InstructBlipForConditionalGeneration.from_pretrained(folder).generation_config
    assert (
        settings.num_beams,
        settings.max_length,
        settings.repetition_penalty,
        settings.length_penalty,
    ) == (5, 256, 1.5, 1.0)
    assert model.processor.tokenizer.pad_token_id == 420 and model.model.config.image_token_index == 421


def test_a_converted_folder_is_fine_tuned_and_goes_back_to_the_authors_format(folder, tmp_path, pairs):
    model, processor = load_model(folder, quiet=True)
    recipe = Recipe(steps=2, images=3, pairs_per_image=3, validate_every=2)
    log = finetune(model, processor, pairs, tmp_path / "tuned", recipe=recipe)
    assert log["loss"].dropna().between(0, 20).all()
    export_checkpoint(tmp_path / "tuned", tmp_path / "tuned.pth")
    again = convert_checkpoint(tmp_path / "tuned.pth", tmp_path / "again", **OPTIONS)
    image = pairs["test"]["image"][0]
    scores = [
        expvqa.load(place, quiet=True).aus(image, aus=[1, 12, 25])
        for place in (tmp_path / "tuned", again, folder)
    ]
    assert (scores[0] - scores[1]).abs().max() < 1e-4 < (scores[0] - scores[2]).abs().max()


def test_a_qformer_tokenizer_that_has_dec_already_gives_the_same_folder(folder, tmp_path):
    options = OPTIONS | {"qformer_tokenizer": GOLDEN / "bert_tokenizer_dec"}
    other = convert_checkpoint(GOLDEN / "exp_vqa_trimmed.pth", tmp_path / "out", **options)
    ids = [
        load_model(place, quiet=True)[1].qformer_tokenizer("AU12?")["input_ids"] for place in (folder, other)
    ]
    assert ids[0] == ids[1]


def test_the_command_line_converts_the_full_size_and_back(tmp_path, capsys):
    out, back = str(tmp_path / "out"), tmp_path / "back.pth"
    checkpoint, base = str(GOLDEN / "exp_vqa_fz_trimmed.pth"), str(GOLDEN / "eva_vit_base.pth")
    given = ["--language-model", str(GOLDEN / "llm"), "--qformer-tokenizer", str(GOLDEN / "bert_tokenizer")]
    assert main(["convert", checkpoint, *given, "--base", base, "--output", out]) == 1
    assert "heads 12 do not divide the width 32" in capsys.readouterr().err  # the full size has 12
    convert_checkpoint(checkpoint, out, **OPTIONS, base=base)
    assert main(["convert", out, "--to-lavis", "--output", str(back)]) == 0 and back.is_file()
    assert main(["convert", checkpoint, "--output", str(tmp_path / "other")]) == 1
    assert "--language-model is missing" in capsys.readouterr().err


def test_a_checkpoint_may_carry_the_frozen_language_model_along(tmp_path):
    state = torch.load(GOLDEN / "exp_vqa_trimmed.pth", weights_only=True)["model"]
    words = load_file(GOLDEN / "llm" / "model.safetensors")
    torch.save(
        {"model": state | {f"llm_model.{k}": v for k, v in words.items()}, "epoch": 5}, tmp_path / "whole.pth"
    )
    assert convert_checkpoint(tmp_path / "whole.pth", tmp_path / "out", **OPTIONS).is_dir()
    name = next(k for k in words if "q_proj" in k)
    torch.save({"model": state | {f"llm_model.{name}": words[name] + 1}}, tmp_path / "other.pth")
    with pytest.raises(
        ModelError, match=f"not the language model that .* carries; 1 differ: llm_model.{name}"
    ):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out2", **OPTIONS)


def test_of_the_eva_file_what_the_reference_leaves_out_is_left_out(tmp_path):
    base = torch.load(GOLDEN / "eva_vit_base.pth", weights_only=True)
    torch.save(
        base | {"head.weight": torch.zeros(2, 48), "fc_norm.bias": torch.zeros(48)}, tmp_path / "eva.pth"
    )
    assert (
        lavis.read_checkpoint(tmp_path / "eva.pth").keys()
        == lavis.read_checkpoint(GOLDEN / "eva_vit_base.pth").keys()
    )
    full = {
        "patch_embed.proj.weight": torch.zeros(1408, 1),
        "blocks.38.norm1.bias": torch.zeros(1),
        "blocks.39.norm1.bias": torch.zeros(1),
    }
    torch.save(full, tmp_path / "full.pth")
    assert "visual_encoder.blocks.38.norm1.bias" in (found := lavis.read_checkpoint(tmp_path / "full.pth"))
    assert "visual_encoder.blocks.39.norm1.bias" not in found


# ------------------------------------------------------------------------------------------------------------- bad input


class Malicious:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


def refused(match: str, checkpoint, tmp_path: Path, error=ModelError, **options) -> None:
    out = tmp_path / "refused"
    with pytest.raises(error, match=match):
        convert_checkpoint(checkpoint, out, **OPTIONS | options)
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, zipped):
    mark, path = tmp_path / "mark", tmp_path / "bad.pth"
    content = {"model": {"query_tokens": torch.zeros(1)}, "epoch": Malicious(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    refused("refused, nothing was executed|not a whole checkpoint", path, tmp_path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert mark.read_text() == "executed"  # the file was dangerous indeed


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    whole = (GOLDEN / "exp_vqa_trimmed.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(share * len(whole))])
    refused(r"cut\.pth: not a whole checkpoint", tmp_path / "cut.pth", tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    refused(r"nothing\.pth: no such checkpoint file", tmp_path / "nothing.pth", tmp_path)
    for content, found in (({"weights": 3}, "keys weights"), ([1], "a list"), ({"model": {}}, "keys model")):
        torch.save(content, tmp_path / "odd.pth")
        refused(f"odd.pth: found {found}; expected tensors by name", tmp_path / "odd.pth", tmp_path)


def test_missing_surplus_and_wrongly_shaped_tensors_are_all_named(tmp_path):
    state = torch.load(GOLDEN / "exp_vqa_trimmed.pth", weights_only=True)["model"]
    gone = [
        "visual_encoder.blocks.1.attn.v_bias",
        "Qformer.bert.encoder.layer.2.output.dense.bias",
        "ln_vision.weight",
    ]
    state = {name: value for name, value in state.items() if name not in gone}
    state |= {"surplus.one": torch.zeros(1), "surplus.two": torch.zeros(1), "llm_proj.bias": torch.zeros(7)}
    torch.save({"model": state}, tmp_path / "odd.pth")
    with pytest.raises(ModelError) as error:
        convert_checkpoint(tmp_path / "odd.pth", tmp_path / "out", **OPTIONS)
    assert "3 missing: " + ", ".join(sorted(gone)) in str(error.value)
    assert "2 not known: surplus.one, surplus.two" in str(error.value)
    assert "1 of another shape: llm_proj.bias [7], expected [48]" in str(error.value)
    assert not (tmp_path / "out").exists()
    torch.save(
        {"model": {k: v for k, v in state.items() if k not in ("query_tokens", "llm_proj.weight")}},
        tmp_path / "odd.pth",
    )
    refused(
        "2 tensors that give the sizes are missing: query_tokens, llm_proj.weight",
        tmp_path / "odd.pth",
        tmp_path,
    )
    torch.save({"model": state | {"query_tokens": torch.zeros(6)}}, tmp_path / "odd.pth")
    refused(r"wrongly shaped: query_tokens \[6\]", tmp_path / "odd.pth", tmp_path)
    torch.save({"model": state | {"visual_encoder.pos_embed": torch.zeros(1, 16, 48)}}, tmp_path / "odd.pth")
    refused("16 positions; expected a class token and a square of patches", tmp_path / "odd.pth", tmp_path)


def test_layers_with_a_gap_and_numbers_that_are_no_weights_are_refused(tmp_path):
    state = torch.load(GOLDEN / "exp_vqa_trimmed.pth", weights_only=True)["model"]
    path = tmp_path / "odd.pth"
    torch.save({"model": state | {"visual_encoder.blocks.50000000.norm1.weight": torch.zeros(48)}}, path)
    refused(r"layers are missing: visual_encoder\.blocks\.3 \(found 4\)", path, tmp_path)
    torch.save({"model": {k: v for k, v in state.items() if ".layer.1." not in k}}, path)
    refused(r"layers are missing: Qformer\.bert\.encoder\.layer\.1 ", path, tmp_path)
    torch.save({"model": state | {"llm_proj.bias": torch.zeros(48, dtype=torch.int64)}}, path)
    refused("1 tensors do not hold floating-point numbers: llm_proj.bias", path, tmp_path)


def test_fz_needs_a_base_and_a_complete_checkpoint_none(tmp_path):
    fz, whole = GOLDEN / "exp_vqa_fz_trimmed.pth", GOLDEN / "exp_vqa_trimmed.pth"
    refused("holds no vision encoder, as .* give the file it was trained from with --base", fz, tmp_path)
    refused("holds a vision encoder itself; leave --base out", whole, tmp_path, base=whole)
    refused(
        "holds no vision encoder; expected a complete LAVIS-format file or the EVA ViT file",
        fz,
        tmp_path,
        base=fz,
    )


def test_parts_that_do_not_fit_are_refused(tmp_path):
    whole = GOLDEN / "exp_vqa_trimmed.pth"
    wide = language_folder(tmp_path / "wide", 64)
    refused(
        "llm_proj gives 48 values, but the language model is 64 wide", whole, tmp_path, language_model=wide
    )
    refused("no language model here", whole, tmp_path, language_model=tmp_path)
    for options, message in (
        ({"vision_heads": 5}, "--vision-heads 5 do not divide the width 48"),
        ({"qformer_heads": 12}, "--qformer-heads 12 do not divide the width 32"),
        ({"patch_size": 16}, r"--patch-size 16, but .* patches of 14"),
    ):
        refused(message, whole, tmp_path, **options)
    other = tmp_path / "bert"
    shutil.copytree(GOLDEN / "bert_tokenizer", other)
    (other / "vocab.txt").write_text((other / "vocab.txt").read_text() + "surplus\n")
    refused(
        r"322 tokens with \[DEC\], but the Q-Former of .* knows 321", whole, tmp_path, qformer_tokenizer=other
    )
    (wide / "model.safetensors").write_bytes(b"half")
    shutil.copy(GOLDEN / "llm" / "config.json", wide / "config.json")
    refused("the language model cannot be read", whole, tmp_path, language_model=wide)
    refused("a tokenizer cannot be read", whole, tmp_path, qformer_tokenizer=tmp_path / "nowhere")


def test_a_place_that_is_taken_or_full_is_left_alone(folder, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken.pth").write_text("mine")
    with pytest.raises(ModelError, match="taken: exists already"):
        convert_checkpoint(GOLDEN / "exp_vqa_trimmed.pth", tmp_path / "taken", **OPTIONS)
    with pytest.raises(ModelError, match="taken.pth: exists already"):
        export_checkpoint(folder, tmp_path / "taken.pth")
    assert (tmp_path / "taken.pth").read_text() == "mine"
    with pytest.raises(SettingsError, match="ends in .pth"):
        export_checkpoint(folder, tmp_path / "back")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(r"0\.0 GB are needed, 0\.0 GB are free", GOLDEN / "exp_vqa_trimmed.pth", tmp_path)
    monkeypatch.undo()

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(InstructBlipForConditionalGeneration, "save_pretrained", no_room)
    refused(
        "the disk is full; nothing was left behind",
        GOLDEN / "exp_vqa_trimmed.pth",
        tmp_path,
        error=ExpVQAError,
    )


def test_a_folder_that_is_no_whole_model_is_not_exported(folder, tmp_path):
    for place, message in (
        (tmp_path, "no InstructBLIP model"),
        (GOLDEN / "llm", "found model type 'llama', expected 'instructblip'"),
    ):
        with pytest.raises(ModelError, match=message):
            export_checkpoint(place, tmp_path / "out.pth")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").rename(broken / "other.safetensors")
    (broken / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"query_tokens": "../secret.safetensors"}})
    )
    with pytest.raises(ModelError, match=r"names a file outside of its folder: \.\./secret\.safetensors"):
        export_checkpoint(broken, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
