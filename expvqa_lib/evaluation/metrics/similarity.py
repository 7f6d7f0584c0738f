"""How near a caption's meaning is to its references': by a sentence encoder, or by weighted words alone; percent, best over references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import ModelError
from .ngrams import tokens

MAX_TOKENS = 256  # of a caption; the rest is cut


def embedding_similarity(
    captions: Sequence[str], references: Sequence[Sequence[str]], encoder: str | Path
) -> np.ndarray:
    """Return the best cosine [N] of sentence embeddings, in percent; 0 for a caption without a word.

    Args:
        encoder: a folder or hub name of a text encoder that transformers' AutoModel reads (BERT and its kin). A sentence's embedding is
            the mean of its last hidden states over all tokens that are not padding. A hub name is downloaded where it is not cached.

    Raises:
        ModelError: no encoder and tokenizer could be loaded.
    """
    texts = list(dict.fromkeys([*captions, *(text for those in references for text in those)]))
    rows = {text: row for row, text in enumerate(texts)}
    return np.where(
        [bool(tokens(text)) for text in captions],
        _best(captions, references, rows, _embed(texts, encoder)),
        0.0,
    )


def tfidf_similarity(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the best cosine [N] of TF-IDF vectors of words and pairs of words, in percent.

    It knows no meaning: another word for the same action counts as a miss. How rare a word is comes from these references.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = list(dict.fromkeys([*captions, *(text for those in references for text in those)]))
    vectorizer = TfidfVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, 2))
    vectorizer.fit([text for those in references for text in those])
    return _best(
        captions, references, {text: row for row, text in enumerate(texts)}, vectorizer.transform(texts)
    )


def _best(
    captions: Sequence[str], references: Sequence[Sequence[str]], rows: Mapping[str, int], unit
) -> np.ndarray:
    """The best product of a caption's unit vector with those of its references; `unit` [texts, D], dense or sparse."""
    pairs = [
        (k, rows[c], rows[r])
        for k, (c, those) in enumerate(zip(captions, references, strict=True))
        for r in those
    ]
    caption, mine, other = np.array(pairs).T
    product = unit[mine] * unit[other] if isinstance(unit, np.ndarray) else unit[mine].multiply(unit[other])
    best = np.full(len(captions), -np.inf)
    np.maximum.at(best, caption, 100 * np.asarray(product.sum(axis=1)).ravel())
    return best


def _embed(texts: Sequence[str], encoder: str | Path, batch: int = 64) -> np.ndarray:
    """Unit vectors [texts, D]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    except Exception as error:
        raise ModelError(
            f"{encoder}: no sentence encoder could be loaded ({error}); expected a folder or hub name of a BERT and its tokenizer"
        ) from error
    parts = []
    for k in range(0, len(texts), batch):
        length = min(tokenizer.model_max_length, MAX_TOKENS)
        words = tokenizer(
            list(texts[k : k + batch]), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(**words).last_hidden_state.float()  # [n, T, D]
        mask = words["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        parts.append(torch.nn.functional.normalize(mean, dim=1))
    return torch.cat(parts).numpy()
