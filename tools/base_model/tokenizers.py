"""The two tokenizers of the tiny model, trained on the texts that it will read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def train_tokenizers(
    texts: Iterable[str], vocabulary: int
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """Train the language model's (byte-level BPE) and the Q-Former's tokenizer (WordPiece), lower case.

    As in the reference, a sequence of the language model starts with `</s>` (id 2), which is also its end.
    """
    texts = list(texts)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    special = ["[PAD]", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    )
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    language = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="[PAD]",
        additional_special_tokens=["<image>"],
    )
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    piece = Tokenizer(models.WordPiece(_word_pieces(texts, vocabulary, names), unk_token="[UNK]"))
    piece.normalizer = normalizers.BertNormalizer(lowercase=True)
    piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    piece.decoder = decoders.WordPiece()
    piece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    qformer = PreTrainedTokenizerFast(
        tokenizer_object=piece,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )
    return language, qformer


def _word_pieces(texts: Iterable[str], size: int, names: Sequence[str]) -> dict[str, int]:
    """Train a WordPiece vocabulary whose letters have fixed places, which the trainer alone would shuffle."""
    letters = [chr(c) for c in range(33, 127) if chr(c) == chr(c).lower()]
    fixed = [*names, *letters, *(f"##{letter}" for letter in letters)]
    piece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    piece.normalizer = normalizers.BertNormalizer(lowercase=True)
    piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    piece.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=fixed))
    return piece.get_vocab(with_added_tokens=False)
