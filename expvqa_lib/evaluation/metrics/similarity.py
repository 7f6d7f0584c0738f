"""How near a caption's meaning is to its references': by a sentence encoder, or by weighted words alone.

Each measure is the best cosine over a caption's references, in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel, AutoTokenizer

from ...errors import ModelError
from .ngrams import tokens

MAX_TOKENS = 256  # of a caption; the rest is cut


def embedding_similarity(
    captions: Sequence[str], references: Sequence[Sequence[str]], encoder: str | Path
) -> np.ndarray:
    """Return the best cosine [N] of sentence embeddings, in percent; 0 for a caption without a word.

    Args:
        encoder: a folder or hub name of a text encoder that transformers' AutoModel reads (BERT and its kin).
            A sentence's embedding is the mean of its last hidden states over all tokens that are not padding.

    Raises:
        ModelError: no encoder and tokenizer could be loaded.
    """
    texts, rows = _flat(references)
    unit = dict(
        zip(distinct := list(dict.fromkeys([*captions, *texts])), _embed(distinct, encoder), strict=True)
    )
    cosines = [unit[captions[row]] @ unit[text] for row, text in zip(rows, texts, strict=True)]
    return np.where([bool(tokens(text)) for text in captions], _best(np.array(cosines), rows), 0.0)


def tfidf_similarity(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the best cosine [N] of TF-IDF vectors of words and pairs of words, in percent.

    It knows no meaning: another word for the same action counts as a miss. How rare a word is comes from
        these
    references.
    """
    texts, rows = _flat(references)
    vectorizer = TfidfVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, 2)).fit(texts)
    product = vectorizer.transform(captions)[rows].multiply(vectorizer.transform(texts))
    return _best(np.asarray(product.sum(axis=1)).ravel(), rows)


def _flat(references: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """All references one after the other, and the row of each."""
    rows = np.repeat(np.arange(len(references)), [len(texts) for texts in references])
    return [text for texts in references for text in texts], rows


def _best(cosines: np.ndarray, rows: np.ndarray) -> np.ndarray:
    best = np.full(rows.max() + 1, -np.inf)
    np.maximum.at(best, rows, 100 * cosines)
    return best


def _embed(texts: Sequence[str], encoder: str | Path, batch: int = 64) -> np.ndarray:
    """Unit vectors [texts, D]."""
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    except Exception as error:
        message = f"{encoder}: no sentence encoder could be loaded ({error})"
        raise ModelError(f"{message}; expected a folder or hub name of a BERT and its tokenizer") from error
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    options["max_length"] = min(tokenizer.model_max_length, MAX_TOKENS)
    parts = []
    for k in range(0, len(texts), batch):
        words = tokenizer(list(texts[k : k + batch]), **options)
        with torch.inference_mode():
            states = model(**words).last_hidden_state.float()  # [n, T, D]
        mask = words["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        parts.append(torch.nn.functional.normalize(mean, dim=1))
    return torch.cat(parts).numpy()
