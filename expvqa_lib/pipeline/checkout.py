"""The checkout that holds this package, its commit, and the software that a result depends on."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def repository_root() -> Path | None:
    """The folder above this package with `notebooks/` and `pyproject.toml`; None without a checkout."""
    folders = Path(__file__).resolve().parents
    holds = (f for f in folders if (f / "notebooks").is_dir() and (f / "pyproject.toml").is_file())
    return next(holds, None)


def git_commit() -> str | None:
    """The checkout's short commit, with `+changes` where files but figures differ; None without git."""
    root = repository_root()
    if root is None or not (root / ".git").exists():  # a repository further up is not this project's
        return None
    head = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    changes = ["git", "-C", str(root), "status", "--porcelain", "-uno", "--", ".", ":(exclude)figures"]
    try:
        commit, changed = (subprocess.run(c, capture_output=True, text=True).stdout for c in (head, changes))
        return commit.strip() + ("+changes" if changed else "") or None
    except FileNotFoundError:  # no git on this machine
        return None


def software() -> dict[str, str]:
    """Commit, versions and machine; an empty commit where there is none."""
    versions = {name: version(name) for name in ("torch", "transformers")}
    commit = git_commit() or ""
    return {"commit": commit, "python": platform.python_version(), **versions, "machine": platform.machine()}
