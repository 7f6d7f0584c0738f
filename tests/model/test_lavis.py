"""The authors' checkpoints: parity with what the original implementation computed, and other sizes."""

from __future__ import annotations

import json

import pytest
import torch
from released import GOLDEN, OPTIONS, language_folder, lavis_state, other_sizes
from safetensors.torch import load_file
from transformers import InstructBlipForConditionalGeneration, LlamaConfig

import expvqa_lib as expvqa
from expvqa_lib.model import convert_checkpoint, export_checkpoint, lavis
from expvqa_lib.model.answer import generate
from expvqa_lib.model.forward import answer_loss, encode_images, language_inputs, query_image
from expvqa_lib.model.load import load_model
from expvqa_lib.model.tokenize import encode
from expvqa_lib.training import batch_loss, freeze

WORDS = 421  # columns of the original: the vocabulary and [PAD]; ours has the placeholder <image> behind them
SETTINGS = ["b1_rp1.0_lp1", "b1_rp1.5_lp1", "b5_rp1.0_lp1", "b5_rp1.5_lp1", "b5_rp1.5_lp0", "b5_rp1.5_lp-1"]


@pytest.fixture(scope="module")
def pairs() -> list[list[str]]:
    return json.loads((GOLDEN / "golden.json").read_text())["qa"]


@pytest.fixture
def loaded(folder):
    """Model and processor of the converted folder, with the rows of [PAD] that the original happened to have."""
    model, processor = load_model(folder, quiet=True)
    row = load_file(GOLDEN / "llm_pad_row.safetensors")
    with torch.no_grad():
        model.language_model.get_input_embeddings().weight[WORDS - 1] = row["embed_tokens"][0]
        model.language_model.lm_head.weight[WORDS - 1] = row["lm_head"][0]
    return model, processor


def difference(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine - theirs).detach().abs().max())


def forward(model, processor, golden, pairs) -> tuple[torch.Tensor, torch.Tensor, dict, dict]:
    """Image embeddings, query outputs, language inputs and encoded text of golden's batch: 3 images with 4 questions each."""
    text = encode(processor, [q for q, _ in pairs] * 3, [a for _, a in pairs] * 3)
    embeds = encode_images(model, golden["images"])
    index = torch.arange(3).repeat_interleave(4)
    output = query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"], index)
    return embeds, output, language_inputs(model, output, text["input_ids"], text["attention_mask"]), text


# ---------------------------------------------------------------------------------------------------------------- parity


@torch.no_grad()
def test_vision_qformer_and_projection_agree_within_2e_5(loaded, golden, pairs):
    model = loaded[0]
    embeds, output, _, _ = forward(*loaded, golden, pairs)
    assert difference(embeds, golden["image_embeds"]) < 2e-5
    assert difference(output, golden["fwd.query_output"]) < 2e-5
    assert difference(model.language_projection(output), golden["fwd.llm_proj"]) < 2e-5
    # before the norm, values reach 16 and float32 itself is off by 1.7e-5, golden's too: without our share of that, it is within
    vision = model.vision_model.double()
    before_norm = vision.encoder(inputs_embeds=vision.embeddings(golden["images"].double())).last_hidden_state
    assert golden["vit_out"].abs().max() > 10 and difference(before_norm, golden["vit_out"]) < 2e-5


def test_token_ids_labels_and_masks_are_the_originals(loaded, golden, pairs):
    text = encode(loaded[1], [q for q, _ in pairs] * 3, [a for _, a in pairs] * 3)
    width = text["input_ids"].shape[
        1
    ]  # the original pads questions and answers apart, and so ends in more padding
    assert torch.equal(text["input_ids"], golden["fwd.llm_text_ids"][:, :width])
    assert (golden["fwd.llm_text_ids"][:, width:] == WORDS - 1).all()
    assert torch.equal(text["labels"], golden["fwd.llm_labels"][:, 6 : 6 + width])
    assert torch.equal(text["qformer_input_ids"], golden["fwd.qformer_input_ids"])
    known = json.loads((GOLDEN / "golden.json").read_text())["tokens"]
    for sentence, ids in known["llm"].items():
        assert loaded[1].tokenizer(sentence)["input_ids"] == ids
    for sentence, ids in known["bert"].items():
        assert loaded[1].qformer_tokenizer(sentence)["input_ids"] == ids


@torch.no_grad()
def test_logits_and_loss_agree_within_1e_4(loaded, golden, pairs):
    _, _, inputs, text = forward(*loaded, golden, pairs)
    logits = loaded[0].language_model(**inputs).logits[..., :WORDS]
    seen = inputs["attention_mask"].bool()
    assert difference(logits[seen], golden["fwd.llm_logits"][:, : logits.shape[1]][seen]) < 1e-4
    assert difference(answer_loss(loaded[0], inputs, text["labels"]), golden["fwd.loss"]) < 1e-4


def test_gradients_of_our_training_step_agree_within_1e_5(loaded, golden, pairs):
    model, processor = loaded
    freeze(model, "exp_vqa")
    batch = {
        "pixel_values": golden["images"],
        "image_index": torch.arange(3).repeat_interleave(4),
        "groups": 2,
    }
    loss = batch_loss(model, batch | encode(processor, [q for q, _ in pairs] * 3, [a for _, a in pairs] * 3))
    assert difference(loss, golden["fwd.loss"]) < 1e-4
    loss.backward()
    mine = lavis.to_lavis(
        {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in model.named_parameters()}
    )
    named = [name for name in golden if name.startswith("grad.") and name != "grad.total_norm"]
    assert len(named) == 8
    for name in named:
        assert difference(mine[name.removeprefix("grad.")], golden[name]) < 1e-5, name
    norm = torch.stack(
        [value.float().norm() for name, value in mine.items() if "position_ids" not in name]
    ).norm()
    assert difference(norm, golden["grad.total_norm"]) < 1e-4


def spoken_ids(model, processor, embeds, asked, **settings) -> torch.Tensor:
    """The ids behind `generate`'s words."""
    found, original = [], model.language_model.generate

    def generate_ids(**inputs):
        found.append(original(**inputs))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.language_model, "generate", generate_ids)
        generate(model, processor, [], asked, embeds=embeds, **settings)
    (ids,) = found
    return ids


def same_rows(mine: torch.Tensor, theirs: torch.Tensor, end: int = 2) -> list[bool]:
    """Row by row: the same ids up to the end token."""

    def cut(row: list[int]) -> list[int]:
        return row[: row.index(end)] if end in row else row

    return [cut(m) == cut(t) for m, t in zip(mine.tolist(), theirs.tolist(), strict=True)]


def test_generated_ids_are_the_originals_in_71_of_72_rows(loaded, golden, pairs):
    model, processor = loaded
    embeds = encode_images(model, golden["images"]).detach().repeat_interleave(4, 0)
    wrong = []
    for name in SETTINGS:
        beams, repetition, length = (float(part.lstrip("brlp")) for part in name.split("_"))
        how = {
            "num_beams": int(beams),
            "repetition_penalty": repetition,
            "length_penalty": length,
            "max_new_tokens": 23,
        }
        mine = spoken_ids(model, processor, embeds, [q for q, _ in pairs] * 3, **how)
        theirs = golden[f"gen.{name}.ids"][
            :, 1:
        ].clone()  # behind a dummy start; after the end it holds 0, which the original makes 2
        theirs[theirs == 0] = 2
        wrong += [(name, row) for row, same in enumerate(same_rows(mine, theirs)) if not same]
    assert wrong in (
        [],
        [("b5_rp1.0_lp1", 8)],
    )  # a beam cut by the length limit, which transformers scores another way


def test_short_answers_to_yes_no_questions_are_the_originals(loaded, golden, pairs):
    model, processor = loaded
    embeds = encode_images(model, golden["images"]).detach().repeat_interleave(4, 0)
    how = {"num_beams": 5, "length_penalty": 0.0, "repetition_penalty": 1.5, "max_new_tokens": 9}
    mine = spoken_ids(model, processor, embeds, [q for q, _ in pairs] * 3, **how)
    theirs = golden["gen.predict_answers.ids"][:, 1:].clone()
    theirs[theirs == 0] = 2
    assert all(same_rows(mine, theirs))


def test_the_final_vision_norm_keeps_its_own_epsilon_after_save_and_load(folder, tmp_path):
    probe = load_file(GOLDEN / "ln_probe.safetensors")
    expvqa.load(folder, quiet=True).save(tmp_path / "again")
    for place in (folder, tmp_path / "again"):
        norm = load_model(place, quiet=True)[0].vision_model.post_layernorm
        assert difference(norm(probe["ln_in"]), probe["ln_out"]) < 1e-6
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).vision_model.post_layernorm
    assert (
        difference(plain(probe["ln_in"]), probe["ln_out"]) > 0.01
    )  # what the README says of plain transformers


@pytest.mark.parametrize("base", ["eva_vit_base.pth", "exp_vqa_trimmed.pth"])
def test_fz_over_its_base_is_the_complete_one(folder, tmp_path, base):
    other = convert_checkpoint(
        GOLDEN / "exp_vqa_fz_trimmed.pth", tmp_path / "fz", base=GOLDEN / base, **OPTIONS
    )
    mine, whole = load_file(other / "model.safetensors"), load_file(folder / "model.safetensors")
    assert mine.keys() == whole.keys() and all(torch.equal(mine[name], whole[name]) for name in whole)


def test_the_round_trip_is_exact(folder, tmp_path):
    export_checkpoint(folder, tmp_path / "back.pth")
    mine, original = (
        torch.load(p, weights_only=True)["model"]
        for p in (tmp_path / "back.pth", GOLDEN / "exp_vqa_trimmed.pth")
    )
    assert mine.keys() == original.keys()
    assert all(
        torch.equal(mine[name], original[name]) and mine[name].dtype == original[name].dtype
        for name in original
    )


# ----------------------------------------------------------------------------------------------------------- other sizes


def reference_forward(
    state: dict, sizes: dict, pixels: torch.Tensor, ids: torch.Tensor, heads: int, q_heads: int
) -> torch.Tensor:
    """Projected queries [N, Q, D_language] computed from a LAVIS state by the reference's formulas, one operation a line."""
    f = torch.nn.functional

    def attend(query, key, value, heads):
        query, key, value = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (query, key, value))
        return (
            ((query @ key.transpose(2, 3)) / query.shape[3] ** 0.5)
            .softmax(3)
            .matmul(value)
            .transpose(1, 2)
            .flatten(2)
        )

    def linear(x, name):
        return f.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name, eps):
        return f.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    at = "visual_encoder."
    x = f.conv2d(
        pixels,
        state[f"{at}patch_embed.proj.weight"],
        state[f"{at}patch_embed.proj.bias"],
        stride=sizes["patch"],
    ).flatten(2)
    x = (
        torch.cat([state[f"{at}cls_token"].expand(len(pixels), -1, -1), x.transpose(1, 2)], 1)
        + state[f"{at}pos_embed"]
    )
    for k in range(sizes["layers"]):
        block = f"{at}blocks.{k}."
        bias = torch.cat(
            [state[f"{block}attn.q_bias"], torch.zeros(sizes["width"]), state[f"{block}attn.v_bias"]]
        )
        qkv = f.linear(norm(x, f"{block}norm1", 1e-6), state[f"{block}attn.qkv.weight"], bias).chunk(3, 2)
        x = x + linear(attend(*qkv, heads), f"{block}attn.proj")
        x = x + linear(f.gelu(linear(norm(x, f"{block}norm2", 1e-6), f"{block}mlp.fc1")), f"{block}mlp.fc2")
    image = norm(x, "ln_vision", 1e-5)
    at, queries = "Qformer.bert.", sizes["queries"]
    words = (
        state[f"{at}embeddings.word_embeddings.weight"][ids]
        + state[f"{at}embeddings.position_embeddings.weight"][: ids.shape[1]]
    )
    h = norm(
        torch.cat([state["query_tokens"].expand(len(ids), -1, -1), words], 1),
        f"{at}embeddings.LayerNorm",
        1e-12,
    )
    for k in range(sizes["q_layers"]):
        layer = f"{at}encoder.layer.{k}."

        def block(x, seen, name, layer=layer):
            done = attend(
                *(
                    linear(t, f"{layer}{name}.self.{p}")
                    for t, p in ((x, "query"), (seen, "key"), (seen, "value"))
                ),
                q_heads,
            )
            return norm(
                linear(done, f"{layer}{name}.output.dense") + x, f"{layer}{name}.output.LayerNorm", 1e-12
            )

        def feed(x, end, layer=layer):
            done = linear(f.gelu(linear(x, f"{layer}intermediate{end}.dense")), f"{layer}output{end}.dense")
            return norm(done + x, f"{layer}output{end}.LayerNorm", 1e-12)

        h = block(h, h, "attention")
        asked, text = h[:, :queries], h[:, queries:]
        if f"{layer}crossattention.self.query.weight" in state:
            asked = block(asked, image, "crossattention")
        h = torch.cat([feed(asked, "_query"), feed(text, "")], 1)
    return linear(h[:, :queries], "llm_proj")


@pytest.mark.parametrize(
    ("changes", "heads", "q_heads"),
    [({}, 3, 6), ({"image": 48, "width": 40, "q_layers": 5, "every": 2, "queries": 7}, 5, 12)],
)
@torch.no_grad()
def test_checkpoints_of_other_sizes_convert_and_compute_the_references_formulas(
    tmp_path, changes, heads, q_heads
):
    sizes = other_sizes(**changes)
    state = lavis_state(sizes)
    torch.save({"model": state}, tmp_path / "other.pth")
    language = language_folder(tmp_path / "llm", sizes["language"])
    options = OPTIONS | {
        "language_model": language,
        "vision_heads": heads,
        "qformer_heads": q_heads,
        "patch_size": sizes["patch"],
    }
    model, processor = load_model(
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out", **options), quiet=True
    )
    assert (
        model.config.vision_config.image_size == sizes["image"]
        and processor.image_processor.size["height"] == sizes["image"]
    )
    pixels = torch.randn(2, 3, sizes["image"], sizes["image"], generator=torch.Generator().manual_seed(1))
    text = encode(processor, ["Is AU12 active?", "Is AU15 active?"])
    ids = text["qformer_input_ids"]
    assert text["qformer_attention_mask"].all()  # nothing is padded, so that the formulas need no mask
    mine = model.language_projection(
        query_image(model, encode_images(model, pixels), ids, text["qformer_attention_mask"])
    )
    theirs = reference_forward(state, sizes, pixels, ids, heads, q_heads)
    assert mine.std() > 0.01 and difference(mine, theirs) < 2e-5
    export_checkpoint(tmp_path / "out", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_mixed_precision_is_kept_bit_by_bit(tmp_path):
    sizes = other_sizes(language=48)
    state = {
        name: value.half() if name.startswith("visual_encoder.") else value
        for name, value in lavis_state(sizes).items()
    }
    torch.save({"model": state}, tmp_path / "half.pth")
    options = OPTIONS | {"vision_heads": 3}
    export_checkpoint(
        convert_checkpoint(tmp_path / "half.pth", tmp_path / "out", **options), tmp_path / "back.pth"
    )
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert all(
        torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in state.items()
    )


def test_a_fine_tuned_key_bias_is_left_out_without_changing_what_is_computed(folder, golden):
    model = load_model(folder, quiet=True)[0]
    before = encode_images(model, golden["images"]).detach()
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.qkv.bias.data[48:96] = 0.3
    assert difference(encode_images(model, golden["images"]), before) < 2e-5
    mine, theirs = (lavis.to_lavis(m.state_dict()) for m in (model, load_model(folder, quiet=True)[0]))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_full_size_is_the_published_one():
    """On the meta device: 39 layers of 1408 and 6144 with 16 heads; 12 layers of 768; 32 queries."""
    sizes = {
        "image": 224,
        "patch": 14,
        "width": 1408,
        "layers": 39,
        "mlp": 6144,
        "q": 768,
        "q_layers": 12,
        "every": 2,
        "q_mlp": 3072,
    }
    sizes |= {"queries": 32, "language": 4096, "positions": 512}
    state = meta_state(sizes)
    state["Qformer.bert.embeddings.word_embeddings.weight"] = torch.empty(30523, 768, device="meta")
    language = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    config = lavis.configure(state, language)
    lavis.check(state, config)
    vision, qformer = config.vision_config, config.qformer_config
    assert (
        vision.num_hidden_layers,
        vision.hidden_size,
        vision.intermediate_size,
        vision.num_attention_heads,
    ) == (39, 1408, 6144, 16)
    assert (vision.image_size, vision.patch_size, config.num_query_tokens) == (224, 14, 32)
    assert (
        qformer.num_hidden_layers,
        qformer.hidden_size,
        qformer.num_attention_heads,
        qformer.intermediate_size,
    ) == (12, 768, 12, 3072)
    assert (
        qformer.cross_attention_frequency == 2
        and qformer.vocab_size == 30523
        and qformer.max_position_embeddings == 512
    )
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert round(count["vision_model"] / 1e6) == 986 and round(count["qformer"] / 1e6) == 186
    assert count["language_model"] == 6_738_415_616  # Llama-7B
    assert model.query_tokens.shape == (1, 32, 768) and model.language_projection.weight.shape == (4096, 768)
    assert model.vision_model.embeddings.position_embedding.shape == (1, 257, 1408)
    assert {tuple(layer.self_attn.qkv.weight.shape) for layer in model.vision_model.encoder.layers} == {
        (4224, 1408)
    }


def meta_state(sizes: dict) -> dict[str, torch.Tensor]:
    """`lavis_state` without its gigabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda shape, generator: torch.empty(shape, device="meta"))
        return lavis_state(sizes)
