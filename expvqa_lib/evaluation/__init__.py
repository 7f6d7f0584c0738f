"""Predictions, metrics with intervals, and the tables of a run (a `pipeline.Run`)."""

from . import ablations, published, zero_shot
from .captions import (
    caption_examples,
    caption_layout,
    caption_quality,
    caption_rows,
    captions,
    captions_beside_published,
)
from .comparison import Scored, compare, compare_run, read_scored
from .detection import (
    au_detection,
    detection_table,
    differences,
    emotion_answers,
    reliability,
    sentence_labels,
    tuned_thresholds,
)
from .predictions import (
    mean_scores,
    measure,
    predict,
    predict_in_parts,
    questions_about,
    read_faces,
    read_predictions,
)
from .probes import finetuned_probe, linear_probe, probe, probe_all, probe_layout
from .scoring import score
from .tables import (
    MODELS,
    NAMES,
    emotion_layout,
    interval_texts,
    macro_averages,
    metric_name,
    results_table,
    tuned_layout,
    with_intervals,
)

__all__ = [
    "MODELS",
    "NAMES",
    "Scored",
    "ablations",
    "au_detection",
    "caption_examples",
    "caption_layout",
    "caption_quality",
    "caption_rows",
    "captions",
    "captions_beside_published",
    "compare",
    "compare_run",
    "detection_table",
    "differences",
    "emotion_answers",
    "emotion_layout",
    "finetuned_probe",
    "interval_texts",
    "linear_probe",
    "macro_averages",
    "mean_scores",
    "measure",
    "metric_name",
    "predict",
    "predict_in_parts",
    "probe",
    "probe_all",
    "probe_layout",
    "published",
    "questions_about",
    "read_faces",
    "read_predictions",
    "read_scored",
    "reliability",
    "results_table",
    "score",
    "sentence_labels",
    "tuned_layout",
    "tuned_thresholds",
    "with_intervals",
    "zero_shot",
]
