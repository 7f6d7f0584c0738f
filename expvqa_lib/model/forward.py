"""Texts as tokens, and InstructBLIP's passes: vision encoder, instruction-aware Q-Former, language model.

The layers are transformers' own. What depends on an image alone is computed once an image, however many
questions are asked about it.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BatchEncoding,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

MAX_QUESTION, MAX_ANSWER = 128, 256  # tokens, as in the released code


def make_processor(
    language: PreTrainedTokenizerBase, qformer: PreTrainedTokenizerBase, image: int, queries: int
) -> InstructBlipProcessor:
    """Processor of images (resized to `image` pixels a side, CLIP's mean and deviation) and of text."""
    return InstructBlipProcessor(
        image_processor=BlipImageProcessorPil(size={"height": image, "width": image}),
        tokenizer=language,
        qformer_tokenizer=qformer,
        num_query_tokens=queries,
    )


def reference_text(text: str, max_words: int = 50) -> str:
    """A training question or answer as the reference prepares it (released `blip_processors.py`).

    Lower case, each of ! " ( ) * # : ; ~ a space, white space collapsed, cut to its first `max_words` words.
    The reference does not prepare a user's questions.
    """
    return " ".join(re.sub(r"[!\"()*#:;~]", " ", text.lower()).split()[:max_words])


def encode(
    processor: InstructBlipProcessor,
    questions: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    left: bool = True,
) -> BatchEncoding:
    """Tokens of questions, with answers for training or without for generation.

    Training pads on the right: `</s>` question, answer, `</s>`; labels cover the answer and its end (-100
    elsewhere). Generation pads on the left, or with `left` false on the right, for encoders. Long questions
    are cut to 128 tokens (the language model keeps their end, the Q-Former their start), answers to 256.

    Returns:
        `input_ids`, `attention_mask` [N, T], `qformer_input_ids`, `qformer_attention_mask` [N, U], and with
        answers `labels` [N, T].
    """
    tokenizer, qformer = processor.tokenizer, processor.qformer_tokenizer
    rows = [ids[:1] + ids[1:][-(MAX_QUESTION - 1) :] for ids in tokenizer(list(questions))["input_ids"]]
    qformer_rows = [
        ids if len(ids) <= MAX_QUESTION else ids[: MAX_QUESTION - 1] + ids[-1:]
        for ids in qformer(list(questions))["input_ids"]
    ]
    labels = {}
    if answers is not None:
        end, left = [tokenizer.eos_token_id], False
        answer_ids = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        answer_rows = [ids[: MAX_ANSWER - 1] + end for ids in answer_ids]
        both = list(zip(rows, answer_rows, strict=True))
        covered = [torch.tensor([-100] * len(question) + answer) for question, answer in both]
        labels = {"labels": pad_sequence(covered, True, -100)}
        rows = [question + answer for question, answer in both]
    side = "left" if left else "right"
    text = tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
    read = qformer.pad({"input_ids": qformer_rows}, padding_side="right", return_tensors="pt")
    return text | {f"qformer_{name}": value for name, value in read.items()} | labels


def encode_images(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Vision encoder: pixels [I, 3, S, S] to image embeddings [I, 1 + patches, D_vision]."""
    return model.vision_model(pixel_values).last_hidden_state


def query_image(
    model: InstructBlipForConditionalGeneration,
    image_embeds: Tensor,
    text: Mapping[str, Tensor],
    image_index: Tensor | None = None,
) -> Tensor:
    """Let the Q-Former read each question and attend to its image.

    The result is transformers' own, but all questions about an image share the cross-attention's keys and
    values, and the last layer leaves out the words, which nothing reads.

    Args:
        image_embeds: [I, P, D_vision], from `encode_images`.
        text: N questions of `encode`, of which `qformer_input_ids` and `qformer_attention_mask` are read.
        image_index: [N], which image each question is about; by default question k is about image k.

    Returns:
        Query outputs [N, Q, D_qformer].
    """
    ids, mask = text["qformer_input_ids"], text["qformer_attention_mask"]
    n, q = len(ids), model.query_tokens.shape[1]
    index = torch.arange(n, device=ids.device) if image_index is None else image_index
    queries = model.query_tokens.expand(n, -1, -1)
    hidden = model.qformer.embeddings(input_ids=ids, query_embeds=queries)  # [N, Q + T, D]
    mask = torch.cat([mask.new_ones(n, q), mask], 1)
    mask = create_bidirectional_mask(config=model.qformer.config, inputs_embeds=hidden, attention_mask=mask)
    slot = (index[:, None] == index).tril(-1).sum(1)  # a question's number among those about its image
    layers = model.qformer.encoder.layer
    for layer in layers:
        attended = layer.attention(hidden, attention_mask=mask)
        queries = attended[:, :q]
        if layer.has_cross_attention:
            by_image = queries.new_zeros(len(image_embeds), int(slot.max()) + 1, *queries.shape[1:])
            by_image[index, slot] = queries  # [I, questions, Q, D]
            output = layer.crossattention(by_image.flatten(1, 2), encoder_hidden_states=image_embeds)
            queries = output.view_as(by_image)[index, slot]
        queries = layer.feed_forward_chunk_query(queries)
        if layer is not layers[-1]:
            hidden = torch.cat([queries, layer.feed_forward_chunk(attended[:, q:])], 1)
    return queries


@contextlib.contextmanager
def attention_weights(part: PreTrainedModel, layers: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the weights [N, heads, from, to] of each attention layer that runs inside."""
    weights: list[Tensor] = []
    with contextlib.ExitStack() as hooks:
        hooks.callback(part.set_attn_implementation, part.config._attn_implementation)
        part.set_attn_implementation("eager")  # the only implementation that gives weights
        for layer in layers:
            hooks.callback(layer.register_forward_hook(lambda *call: weights.append(call[2][1])).remove)
        yield weights


def cross_attention_weights(qformer: PreTrainedModel) -> contextlib.AbstractContextManager[list[Tensor]]:
    """Collect `query_image`'s cross-attention [I, heads, questions * Q, P], a tensor a layer."""
    return attention_weights(
        qformer,
        [layer.crossattention.attention for layer in qformer.encoder.layer if layer.has_cross_attention],
    )


def language_inputs(
    model: InstructBlipForConditionalGeneration,
    query_output: Tensor,
    text: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Language model's inputs: projected queries [N, Q, D], then embeddings of the text [N, T, D].

    `text` is of `encode`. Its padding may stand on either side: positions are counted from the mask. (T5
    counts its own.)
    """
    words, mask = model.language_model.get_input_embeddings()(text["input_ids"]), text["attention_mask"]
    projection = model.language_projection
    prefix = projection(query_output.to(projection.weight.dtype)).to(words.dtype)  # [N, Q, D_language]
    mask = torch.cat([mask.new_ones(prefix.shape[:2]), mask], 1)
    inputs = {"inputs_embeds": torch.cat([prefix, words], 1), "attention_mask": mask}
    if model.config.use_decoder_only_language_model:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs


def next_logits(
    model: InstructBlipForConditionalGeneration, inputs: dict[str, Tensor], beginning: Sequence[int] = ()
) -> Tensor:
    """Logits [N, V] of the next token after a prompt of `language_inputs` and the answer's `beginning`.

    The prompt is padded on the left; `beginning` are token ids, the same for each prompt. Logits are float32.
    """
    language, n = model.language_model, len(inputs["inputs_embeds"])
    tokens = torch.tensor([beginning] * n, dtype=torch.long, device=language.device)  # [N, beginning]
    if not model.config.use_decoder_only_language_model:
        start = torch.full((n, 1), language.config.decoder_start_token_id, device=language.device)
        return language(**inputs, decoder_input_ids=torch.cat([start, tokens], 1)).logits[:, -1].float()
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], 1)
    inputs = {
        "inputs_embeds": torch.cat([inputs["inputs_embeds"], language.get_input_embeddings()(tokens)], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    last = torch.arange(mask.shape[1], device=mask.device).expand_as(mask) == mask.shape[1] - 1
    return language.lm_head(_last_states(language, inputs, last)).float()


def answer_loss(
    model: InstructBlipForConditionalGeneration,
    inputs: dict[str, Tensor],
    labels: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Cross entropy over the labelled tokens; `inputs` from `language_inputs`, `labels` [N, T].

    The placeholder `<image>` is no word of the language model and takes no part, unlike in transformers' own
    loss.
    """
    labelled = labels != -100
    queries = inputs["attention_mask"].shape[1] - labels.shape[1]
    predicting = nn.functional.pad(labelled, (queries - 1, 1))  # [N, Q + T], a token earlier
    states = _last_states(model.language_model, inputs, predicting)
    logits = model.language_model.lm_head(states).float()  # [labelled tokens, V]
    if (placeholder := model.config.image_token_index) is not None:
        logits = logits.index_fill(1, torch.tensor([placeholder], device=logits.device), -torch.inf)
    return nn.functional.cross_entropy(logits, labels[labelled], reduction=reduction)


def _last_states(language: nn.Module, inputs: dict[str, Tensor], wanted: Tensor) -> Tensor:
    """Last hidden states [sum of wanted, D] of a decoder at the positions `wanted` [N, T].

    The other positions are keys and values alone in the last layer, so its other parts leave them out. (Not
    where the layer is wrapped or runs a second time for the gradients, as with activation checkpointing.)
    """
    layer, parts = language.model.layers[-1], []
    if "mlp" in layer._modules and not language.is_activation_checkpointing:
        parts = [layer.mlp, layer.self_attn.q_proj, layer.self_attn.o_proj]

    def spread(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output.new_zeros(*wanted.shape, output.shape[-1]).index_put((wanted,), output)

    with contextlib.ExitStack() as hooks:
        for part in parts:
            hooks.callback(part.register_forward_pre_hook(lambda _, given: given[0][wanted]).remove)
            hooks.callback(part.register_forward_hook(spread).remove)
        return language.model(**inputs, use_cache=False).last_hidden_state[wanted]
