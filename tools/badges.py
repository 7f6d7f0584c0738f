"""`python -m tools.badges` writes the repository of pyproject.toml into every badge and install line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COLAB = "https://colab.research.google.com"


def rewritten(text: str, repository: str = REPOSITORY) -> str:
    """A notebook's or the README's text with Colab addresses and install lines of `repository`."""
    name = repository.removeprefix("https://github.com/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise SystemExit(
            f"pyproject.toml: Repository = {repository!r}; expected https://github.com/OWNER/NAME, which "
            "Colab can open"
        )
    text = re.sub(rf"{COLAB}/github/[\w.-]+/[\w.-]+/", f"{COLAB}/github/{name}/", text)
    return re.sub(r"(git\+|git clone )https://github\.com/[\w.-]+/[\w.-]+", rf"\1{repository}", text)


if __name__ == "__main__":
    for path in (ROOT / "README.md", *NOTEBOOKS):
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
