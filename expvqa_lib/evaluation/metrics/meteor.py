"""METEOR, two kinds of it, and the name says which: they differ by several points and must not stand in one column."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence

import numpy as np

from ...errors import SettingsError
from .ngrams import Tokens


class _NoWordNet:
    """A thesaurus without words; the real one would have to be downloaded."""

    @staticmethod
    def synsets(word: str) -> list:
        return []


def meteor_exact_stem(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Return nltk's METEOR [N] in percent, best over references, with exact and stem (Porter) matches and without synonyms.

    Parameters of Banerjee and Lavie 2005: alpha 0.9, beta 3, gamma 0.5. With WordNet's synonyms most values are higher.
    """
    from nltk.translate.meteor_score import meteor_score

    wordnet = _NoWordNet()
    values = [
        meteor_score(those, caption, wordnet=wordnet)
        for caption, those in zip(captions, references, strict=True)
    ]
    return 100 * np.array(values)


def meteor_1_5(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Return METEOR 1.5 [N] in percent, best over references, with stems, synonyms and paraphrases (Denkowski and Lavie 2014).

    It is the authors' Java program as pycocoevalcap carries it, and takes some seconds to start.

    Raises:
        SettingsError: pycocoevalcap or Java is missing.
    """
    if importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        raise SettingsError(
            "meteor_1_5 needs Java on the path and pip install pycocoevalcap; meteor_exact_stem needs neither"
        )
    from pycocoevalcap.meteor.meteor import Meteor

    given = {k: [" ".join(words) for words in those] for k, those in enumerate(references)}
    said = {k: [" ".join(words)] for k, words in enumerate(captions)}
    return 100 * np.array(Meteor().compute_score(given, said)[1])
