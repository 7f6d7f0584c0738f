"""The checkout that holds this package, its commit, and the software that a result depends on."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path


def repository_root() -> Path | None:
    """The folder above this package with `notebooks/` and `pyproject.toml`; None without a checkout."""
    folders = Path(__file__).resolve().parents
    return next((f for f in folders if (f / "notebooks").is_dir() and (f / "pyproject.toml").is_file()), None)


def git_commit() -> str:
    """The checkout's short commit, with `+changes` where files but figures differ; empty without git."""
    root = repository_root()
    if root is None or not (root / ".git").exists() or not shutil.which("git"):
        return ""  # a repository further up is not this project's
    status = ["status", "--porcelain=v2", "--branch", "-uno", "--", ".", ":(exclude)figures"]
    done = subprocess.run(["git", "-C", root, *status], capture_output=True, text=True)
    head, *lines = done.stdout.splitlines() or [""]
    changed = any(not line.startswith("#") for line in lines)
    return head.removeprefix("# branch.oid ")[:7] + ("+changes" if changed else "")


def software() -> dict[str, str]:
    """Commit, versions and machine."""
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers")},
        "machine": platform.machine(),
    }
