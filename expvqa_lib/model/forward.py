"""The passes of InstructBLIP: vision encoder, instruction-aware Q-Former, and the sequence that the frozen language model reads.

The layers are transformers' own; what depends on an image alone is computed once an image, however many questions are asked about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import InstructBlipForConditionalGeneration, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask


def encode_images(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Vision encoder and its final norm: pixels [I, 3, S, S] to image embeddings [I, 1 + patches, D_vision]."""
    return model.vision_model(pixel_values).last_hidden_state


def query_image(
    model: InstructBlipForConditionalGeneration,
    image_embeds: Tensor,
    qformer_ids: Tensor,
    qformer_mask: Tensor,
    image_index: Tensor | None = None,
) -> Tensor:
    """Q-Former reading each question, with what depends on the image alone computed once an image.

    The layers are transformers' own, and so is the result; but the cross-attention's keys and values are shared by all questions about an
    image, and the last layer's words, which nobody reads, are left out.

    Args:
        image_embeds: [I, P, D_vision], from `encode_images`.
        qformer_ids: questions [N, T]; `qformer_mask` alike, 1 at a word and 0 at padding.
        image_index: [N], which image each question is about; question k is about image k where None.

    Returns:
        Query outputs [N, Q, D_qformer].
    """
    n, q = len(qformer_ids), model.query_tokens.shape[1]
    index = torch.arange(n, device=qformer_ids.device) if image_index is None else image_index
    hidden = model.qformer.embeddings(
        input_ids=qformer_ids, query_embeds=model.query_tokens.expand(n, -1, -1)
    )  # [N, Q + T, D]
    mask = torch.cat([qformer_mask.new_ones(n, q), qformer_mask], 1)
    mask = create_bidirectional_mask(config=model.qformer.config, inputs_embeds=hidden, attention_mask=mask)
    slot = _slots(index)
    layers = model.qformer.encoder.layer
    for layer in layers:
        attended = layer.attention(hidden, attention_mask=mask)
        queries = attended[:, :q]
        if layer.has_cross_attention:
            by_image = queries.new_zeros(len(image_embeds), int(slot.max()) + 1, *queries.shape[1:])
            by_image[index, slot] = queries  # [I, questions, Q, D]
            seen = layer.crossattention(by_image.flatten(1, 2), encoder_hidden_states=image_embeds)
            queries = seen.view_as(by_image)[index, slot]
        queries = layer.feed_forward_chunk_query(queries)
        if layer is not layers[-1]:
            hidden = torch.cat([queries, layer.feed_forward_chunk(attended[:, q:])], 1)
    return queries


@contextlib.contextmanager
def attention_weights(part: PreTrainedModel, layers: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the weights [N, heads, from, to] of each of a part's attention layers that runs inside, in the order of running."""
    weights: list[Tensor] = []
    before = part.config._attn_implementation
    part.set_attn_implementation("eager")  # the only implementation that gives weights
    hooks = [
        layer.register_forward_hook(lambda module, given, result: weights.append(result[1]))
        for layer in layers
    ]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
        part.set_attn_implementation(before)


def cross_attention_weights(qformer: PreTrainedModel) -> contextlib.AbstractContextManager[list[Tensor]]:
    """Collect the weights of each cross-attention that runs inside: [I, heads, questions * Q, P] a layer, of `query_image`'s inputs."""
    return attention_weights(
        qformer,
        [layer.crossattention.attention for layer in qformer.encoder.layer if layer.has_cross_attention],
    )


def _slots(index: Tensor) -> Tensor:
    """The running number of each question among those about its image: [0, 0, 1, 0] to [0, 1, 0, 0]."""
    order = index.argsort(stable=True)
    ranks = torch.arange(len(index), device=index.device)
    counts = torch.bincount(index)
    slots = torch.empty_like(index)
    slots[order] = ranks - (counts.cumsum(0) - counts)[index[order]]
    return slots


def language_inputs(
    model: InstructBlipForConditionalGeneration,
    query_output: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
) -> dict:
    """What the language model reads: projected queries [N, Q, D], then the text's embeddings [N, T, D], with mask and positions.

    Padding may stand on either side of the text: positions are counted from the mask. (T5 counts its own: it gets none.)
    """
    words = model.language_model.get_input_embeddings()(input_ids)
    prefix = model.language_projection(query_output.to(model.language_projection.weight.dtype)).to(
        words.dtype
    )  # [N, Q, D_language]
    mask = torch.cat([attention_mask.new_ones(prefix.shape[:2]), attention_mask], 1)
    inputs = {"inputs_embeds": torch.cat([prefix, words], 1), "attention_mask": mask}
    if model.config.use_decoder_only_language_model:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs


def next_logits(
    model: InstructBlipForConditionalGeneration, inputs: dict, said: Sequence[int] = ()
) -> Tensor:
    """Logits [N, V] of the answer's next token after a prompt of `language_inputs`, padded on the left; of float32.

    `said` are the tokens with which every answer has begun; none for the logits of its first.
    """
    language = model.language_model
    tokens = torch.tensor([said], dtype=torch.long, device=language.device).expand(
        len(inputs["inputs_embeds"]), -1
    )  # [N, said]
    if model.config.use_decoder_only_language_model:
        if said:
            words, mask, places = (
                language.get_input_embeddings()(tokens),
                inputs["attention_mask"],
                inputs["position_ids"],
            )
            inputs = {
                "inputs_embeds": torch.cat([inputs["inputs_embeds"], words], 1),
                "attention_mask": torch.cat([mask, torch.ones_like(tokens, dtype=mask.dtype)], 1),
                "position_ids": torch.cat(
                    [places, places[:, -1:] + torch.arange(1, len(said) + 1, device=places.device)], 1
                ),
            }
        last = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
        last[:, -1] = True
        logits = language.lm_head(_read(language, inputs, last))
    else:
        start = torch.full((len(tokens), 1), language.config.decoder_start_token_id, device=language.device)
        logits = language(**inputs, decoder_input_ids=torch.cat([start, tokens], 1)).logits[:, -1]
    return logits.float()


def answer_loss(
    model: InstructBlipForConditionalGeneration, inputs: dict, labels: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross entropy over the labelled tokens; only their logits are computed. `inputs` from `language_inputs`, labels [N, T].

    The placeholder `<image>` is no word of the language model and takes no part, unlike in transformers' own loss.
    """
    told = labels != -100
    before = nn.functional.pad(
        told, (inputs["attention_mask"].shape[1] - labels.shape[1] - 1, 1)
    )  # [N, Q + T], a token earlier
    logits = model.language_model.lm_head(
        _read(model.language_model, inputs, before)
    ).float()  # [labelled tokens, V]
    if (placeholder := model.config.image_token_index) is not None:
        logits = logits.index_fill(1, torch.tensor([placeholder], device=logits.device), -torch.inf)
    return nn.functional.cross_entropy(logits, labels[told], reduction=reduction)


def _read(language: nn.Module, inputs: dict, wanted: Tensor) -> Tensor:
    """Last hidden states [sum of wanted, D] at the positions `wanted` [N, T] of a decoder-only language model.

    In its last layer the other positions serve as keys and values only, so what else the layer makes of them is left out. (Not where the
    layer runs a second time for the gradients, with activation checkpointing.)
    """
    layer = language.model.layers[-1]
    parts = [] if language.is_activation_checkpointing or "mlp" not in layer._modules else [layer.mlp]
    parts += (
        [layer.self_attn.q_proj, layer.self_attn.o_proj]
        if parts and hasattr(layer.self_attn, "q_proj")
        else []
    )

    def before(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][wanted],)

    def after(module: nn.Module, given: tuple[Tensor], result: Tensor) -> Tensor:
        whole = result.new_zeros(*wanted.shape, result.shape[-1])
        whole[wanted] = result
        return whole

    with contextlib.ExitStack() as hooks:
        for part in parts:
            hooks.callback(part.register_forward_pre_hook(before).remove)
            hooks.callback(part.register_forward_hook(after).remove)
        return language.model(**inputs, use_cache=False).last_hidden_state[wanted]
