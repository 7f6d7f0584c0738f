"""Converted checkpoints compute what the original implementation and its formulas compute."""

import json

import pytest
import torch
from released import GOLDEN, OPTIONS, language_folder, lavis_state
from safetensors.torch import load_file
from transformers import InstructBlipForConditionalGeneration, LlamaConfig
from weights import changed, save

from expvqa_lib.model import convert_checkpoint, encode, export_checkpoint, forward, lavis, load_model
from expvqa_lib.model.answer import encode_images, generate
from expvqa_lib.training import batch_loss, freeze

WORDS = 421  # columns of the original: the vocabulary and [PAD]; ours has the placeholder <image> behind them
SETTINGS = ["b1_rp1.0_lp1", "b1_rp1.5_lp1", "b5_rp1.0_lp1", "b5_rp1.5_lp1", "b5_rp1.5_lp0", "b5_rp1.5_lp-1"]


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """What the original implementation computed."""
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="module")
def pairs() -> dict:
    """Questions and answers about each of golden's 3 images: 4 about each."""
    questions, answers = zip(*json.loads((GOLDEN / "golden.json").read_text())["qa"], strict=True)
    return {"questions": list(questions) * 3, "answers": list(answers) * 3}


@pytest.fixture
def loaded(folder):
    """The converted folder, with the rows of [PAD] that the original happened to have."""
    model, processor = load_model(folder, quiet=True)
    row = load_file(GOLDEN / "llm_pad_row.safetensors")
    model.language_model.get_input_embeddings().weight.data[WORDS - 1] = row["embed_tokens"][0]
    model.language_model.lm_head.weight.data[WORDS - 1] = row["lm_head"][0]
    return model, processor


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().abs().max())


def state_of(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


@torch.no_grad()
def test_vision_qformer_projection_logits_and_loss_are_the_originals(loaded, golden, pairs):
    model, processor = loaded
    text, embeds = encode(processor, **pairs), encode_images(model, golden["images"])
    index = torch.arange(3).repeat_interleave(4)
    output = forward.query_image(model, embeds, text, index)
    assert difference(embeds, golden["image_embeds"]) < 2e-5
    assert difference(output, golden["fwd.query_output"]) < 2e-5
    assert difference(model.language_projection(output), golden["fwd.llm_proj"]) < 2e-5
    inputs = forward.language_inputs(model, output, text)
    logits, mask = model.language_model(**inputs).logits[..., :WORDS], inputs["attention_mask"].bool()
    assert difference(logits[mask], golden["fwd.llm_logits"][:, : logits.shape[1]][mask]) < 1e-4
    assert difference(forward.answer_loss(model, inputs, text["labels"]), golden["fwd.loss"]) < 1e-4
    # before the norm values reach 16, and float32 itself, golden's too, is off by 1.7e-5
    vision = model.vision_model.double()
    before_norm = vision.encoder(inputs_embeds=vision.embeddings(golden["images"].double())).last_hidden_state
    assert golden["vit_out"].abs().max() > 10 and difference(before_norm, golden["vit_out"]) < 2e-5


def test_token_ids_labels_and_masks_are_the_originals(loaded, golden, pairs):
    processor = loaded[1]
    text = encode(processor, **pairs)
    width = text["input_ids"].shape[1]  # the original pads questions and answers apart, and so pads more
    assert torch.equal(text["input_ids"], golden["fwd.llm_text_ids"][:, :width])
    assert (golden["fwd.llm_text_ids"][:, width:] == WORDS - 1).all()
    assert torch.equal(text["labels"], golden["fwd.llm_labels"][:, 6 : 6 + width])
    assert torch.equal(text["qformer_input_ids"], golden["fwd.qformer_input_ids"])
    expected = json.loads((GOLDEN / "golden.json").read_text())["tokens"]
    for name, tokenizer in (("llm", processor.tokenizer), ("bert", processor.qformer_tokenizer)):
        for sentence, ids in expected[name].items():
            assert tokenizer(sentence)["input_ids"] == ids


def test_gradients_of_our_training_step_are_the_originals(loaded, golden, pairs):
    model, processor = loaded
    freeze(model, "exp_vqa")
    index = torch.arange(3).repeat_interleave(4)
    batch = {"pixel_values": golden["images"], "image_index": index, "groups": 2} | encode(processor, **pairs)
    loss = batch_loss(model, batch)
    assert difference(loss, golden["fwd.loss"]) < 1e-4
    loss.backward()
    gradients = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in model.named_parameters()}
    ours = lavis.to_lavis(gradients)
    names = [name for name in golden if name.startswith("grad.") and name != "grad.total_norm"]
    assert len(names) == 8
    for name in names:
        assert difference(ours[name.removeprefix("grad.")], golden[name]) < 1e-5, name
    norms = [value.float().norm() for name, value in ours.items() if "position_ids" not in name]
    assert difference(torch.stack(norms).norm(), golden["grad.total_norm"]) < 1e-4


def equal_answers(model, processor, golden, pairs, name: str, **options) -> list[bool]:
    """Whether the token ids behind `generate`'s words are golden's, a row an answer, up to the end token."""
    embeds = encode_images(model, golden["images"]).detach().repeat_interleave(4, 0)
    ids, original = [], model.language_model.generate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.language_model, "generate", lambda **x: ids.append(original(**x)) or ids[-1])
        generate(model, processor, embeds, pairs["questions"], **options)
    theirs = golden[f"gen.{name}.ids"][:, 1:].clone()  # behind a dummy start
    theirs[theirs == 0] = 2  # after the end it holds 0, which the original makes 2

    def words(row: list[int]) -> list[int]:
        return row[: row.index(2)] if 2 in row else row

    return [words(a) == words(b) for a, b in zip(ids[0].tolist(), theirs.tolist(), strict=True)]


def test_generated_ids_are_the_originals_in_71_of_72_rows(loaded, golden, pairs):
    wrong = []
    for name in SETTINGS:
        beams, repetition, length = (float(part.lstrip("brlp")) for part in name.split("_"))
        options = {"num_beams": int(beams), "repetition_penalty": repetition, "length_penalty": length}
        same = equal_answers(*loaded, golden, pairs, name, **options, max_new_tokens=23)
        wrong += [(name, row) for row, is_same in enumerate(same) if not is_same]
    # a beam cut by the length limit, which transformers scores another way
    assert wrong in ([], [("b5_rp1.0_lp1", 8)])
    options = {"num_beams": 5, "length_penalty": 0.0, "repetition_penalty": 1.5, "max_new_tokens": 9}
    assert all(equal_answers(*loaded, golden, pairs, "predict_answers", **options))  # yes or no


def test_the_final_vision_norm_keeps_its_own_epsilon_after_save_and_load(folder, tmp_path):
    probe = load_file(GOLDEN / "ln_probe.safetensors")
    save(*load_model(folder, quiet=True), tmp_path / "again")
    for place in (folder, tmp_path / "again"):
        norm = load_model(place, quiet=True)[0].vision_model.post_layernorm
        assert difference(norm(probe["ln_in"]), probe["ln_out"]) < 1e-6
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).vision_model.post_layernorm
    assert difference(plain(probe["ln_in"]), probe["ln_out"]) > 0.01  # transformers alone gets it wrong


@pytest.mark.parametrize("base", ["eva_vit_base.pth", "exp_vqa_trimmed.pth"])
def test_fz_over_its_base_is_the_complete_one_and_the_round_trip_is_exact(folder, tmp_path, base):
    checkpoint = GOLDEN / "exp_vqa_fz_trimmed.pth"
    other = convert_checkpoint(checkpoint, tmp_path / "fz", base=GOLDEN / base, **OPTIONS)
    assert not changed(load_file(other / "model.safetensors"), load_file(folder / "model.safetensors"))
    export_checkpoint(other, tmp_path / "back.pth")
    assert not changed(state_of(tmp_path / "back.pth"), state_of(GOLDEN / "exp_vqa_trimmed.pth"))


def test_checkpoints_of_other_sizes_make_the_round_trip(tmp_path):
    """Of a checkpoint that differs from golden's in everything."""
    sizes = {"image": 48, "patch": 8, "width": 40, "layers": 2, "mlp": 44, "q": 48, "q_layers": 5, "every": 2}
    sizes |= {"q_mlp": 56, "queries": 7, "language": 32, "positions": 50}
    state = lavis_state(sizes)
    state |= {name: value.half() for name, value in state.items() if name.startswith("visual_encoder.")}
    torch.save({"model": state}, tmp_path / "other.pth")
    language = language_folder(tmp_path / "llm", sizes["language"])
    options = {"language_model": language, "vision_heads": 5, "qformer_heads": 12}
    out = convert_checkpoint(tmp_path / "other.pth", tmp_path / "out", **OPTIONS | options)
    model, processor = load_model(out, quiet=True)
    assert model.config.vision_config.image_size == sizes["image"] == processor.image_processor.size["height"]
    with torch.no_grad():
        embeds = encode_images(model, torch.randn(2, 3, sizes["image"], sizes["image"]))
    assert embeds.shape == (2, 1 + (sizes["image"] // sizes["patch"]) ** 2, sizes["width"])
    export_checkpoint(out, tmp_path / "back.pth")
    assert not changed(state_of(tmp_path / "back.pth"), state)  # each tensor in its own precision


def test_a_fine_tuned_key_bias_is_left_out_without_changing_what_is_computed(folder, golden):
    model = load_model(folder, quiet=True)[0]
    before, state = encode_images(model, golden["images"]).detach(), lavis.to_lavis(model.state_dict())
    state = {name: value.clone() for name, value in state.items()}
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.qkv.bias.data[48:96] = 0.3
    assert difference(encode_images(model, golden["images"]), before) < 2e-5
    assert not changed(lavis.to_lavis(model.state_dict()), state)


def test_the_full_size_is_the_published_one():
    """39 layers of 1408 and 6144 with 16 heads; 12 layers of 768; 32 queries; on the meta device."""
    sizes = {"image": 224, "patch": 14, "width": 1408, "layers": 39, "mlp": 6144, "queries": 32}
    sizes |= {"q": 768, "q_layers": 12, "every": 2, "q_mlp": 3072, "language": 4096, "positions": 512}
    with pytest.MonkeyPatch.context() as patch:  # without the gigabytes
        patch.setattr(torch, "randn", lambda shape, generator: torch.empty(shape, device="meta"))
        state = lavis_state(sizes)
    state["Qformer.bert.embeddings.word_embeddings.weight"] = torch.empty(30523, 768, device="meta")
    language = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008)
    config = lavis.configure(state, language, lavis.VISION_HEADS, lavis.QFORMER_HEADS, "checkpoint")
    lavis.check(state, config, "checkpoint")
    assert (config.vision_config.image_size, config.qformer_config.cross_attention_frequency) == (224, 2)
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    parts = model.vision_model, model.qformer, model.language_model  # the last is Llama-7B
    assert [round(part.num_parameters() / 1e6) for part in parts] == [986, 186, 6738]
