"""Figures and printed tables, from arrays and tables alone."""

from .attention import attention_grid, attention_words, clip_curves, video_curves
from .charts import (
    ablation_chart,
    au_bars,
    au_cooccurrence,
    confusion,
    forest,
    method_curves,
    method_forest,
    method_heat,
    pointing_bars,
    reliability,
    training_curves,
)
from .faces import (
    answer_grid,
    attention_gallery,
    attention_overlay,
    data_overview,
    face_grid,
    outlined,
    thumbnail,
)
from .style import COLOURS, Figure, save, styled
from .tables import export

__all__ = [
    "COLOURS",
    "Figure",
    "ablation_chart",
    "answer_grid",
    "attention_gallery",
    "attention_grid",
    "attention_overlay",
    "attention_words",
    "au_bars",
    "au_cooccurrence",
    "clip_curves",
    "confusion",
    "data_overview",
    "export",
    "face_grid",
    "forest",
    "method_curves",
    "method_forest",
    "method_heat",
    "outlined",
    "pointing_bars",
    "reliability",
    "save",
    "styled",
    "thumbnail",
    "training_curves",
    "video_curves",
]
