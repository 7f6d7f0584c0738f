"""A companion to Exp-VQA: fine-grained facial expression analysis by visual question answering."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .companion import ExpVQA, load
    from .widgets import explore
    from .workspace import Workspace

__all__ = ["ExpVQA", "Workspace", "explore", "load"]


def __getattr__(name: str):
    """Import torch and transformers only when a model is asked for."""
    if name in ("ExpVQA", "load"):
        from . import companion

        return getattr(companion, name)
    if name == "explore":
        from .widgets import explore

        return explore
    if name == "Workspace":
        from .workspace import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
