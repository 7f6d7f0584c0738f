"""The model: loading, its passes, questions and answers in tokens, P(yes), and the authors' checkpoints."""

from .answer import beginnings, embed_images, first_p_yes, generate, p_yes, score_questions, score_yes_no
from .convert import convert_checkpoint, export_checkpoint
from .forward import (
    answer_loss,
    attention_weights,
    cross_attention_weights,
    encode,
    encode_images,
    language_inputs,
    make_processor,
    next_logits,
    query_image,
    reference_text,
)
from .load import load_model

__all__ = [
    "answer_loss",
    "attention_weights",
    "beginnings",
    "convert_checkpoint",
    "cross_attention_weights",
    "embed_images",
    "encode",
    "encode_images",
    "export_checkpoint",
    "first_p_yes",
    "generate",
    "language_inputs",
    "load_model",
    "make_processor",
    "next_logits",
    "p_yes",
    "query_image",
    "reference_text",
    "score_questions",
    "score_yes_no",
]
