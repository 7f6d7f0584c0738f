"""Where the model looks for an answer, and whether that is true."""

from .gallery import answer_words, examples, face_au_grid, video
from .methods import DEFAULT_METHOD, FAST_METHOD, METHODS, Relevance, Word, explain_words, relevance, upsample
from .truth import faithfulness, faithfulness_layout, pointing, pointing_layout

__all__ = [
    "DEFAULT_METHOD",
    "FAST_METHOD",
    "METHODS",
    "Relevance",
    "Word",
    "answer_words",
    "examples",
    "explain_words",
    "face_au_grid",
    "faithfulness",
    "faithfulness_layout",
    "pointing",
    "pointing_layout",
    "relevance",
    "upsample",
    "video",
]
