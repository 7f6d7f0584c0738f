"""Print docs/datasets.md, the layouts that the readers expect, from their docstrings.

`python -m tools.dataset_layouts > docs/datasets.md`
"""

from __future__ import annotations

import inspect
import re

from expvqa_lib.data.readers import LABEL_READERS, READERS


def layouts() -> str:
    """Return the page as Markdown; a reader of several data sets has one section."""
    names: dict[object, list[str]] = {}
    for name, reader in (READERS | LABEL_READERS).items():
        names.setdefault(getattr(reader, "func", reader), []).append(name)
    parts = [
        "# The data sets and their layouts",
        "The readers' docstrings. `expvqa data check NAME --root DIR` reports on a data set.",
    ]
    for reader, known in names.items():
        parts += [f"## {', '.join(known)}", re.split(r"\n\n(?:Args|Raises):", inspect.getdoc(reader))[0]]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(layouts(), end="")
