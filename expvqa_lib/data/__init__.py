"""Faces with labels as tables, whatever they come from, and the photos themselves."""

from . import inspection
from .footage import find_files, views
from .images import ImageSource, crop_dataset, crop_face, find_faces, load_image
from .inspection import describe_reading, readable
from .pairs import (
    PSEUDO,
    RULES,
    build_pairs,
    pair_row,
    read_pairs_json,
    save_pairs,
    split_by_image,
    to_dataset,
)
from .readers import read_available, read_dataset
from .table import (
    AU_COLUMNS,
    SPLITS,
    au_labels,
    check_table,
    concat_tables,
    labelled_aus,
    read_table,
    write_table,
)

__all__ = [
    "AU_COLUMNS",
    "PSEUDO",
    "RULES",
    "SPLITS",
    "ImageSource",
    "au_labels",
    "build_pairs",
    "check_table",
    "concat_tables",
    "crop_dataset",
    "crop_face",
    "describe_reading",
    "find_faces",
    "find_files",
    "inspection",
    "labelled_aus",
    "load_image",
    "pair_row",
    "read_available",
    "read_dataset",
    "read_pairs_json",
    "read_table",
    "readable",
    "save_pairs",
    "split_by_image",
    "to_dataset",
    "views",
    "write_table",
]
