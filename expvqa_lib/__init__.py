"""A companion to Exp-VQA: fine-grained facial expression analysis by visual question answering."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["ExpVQA", "Run", "explore", "load"]

_ROOMS = {"ExpVQA": "expvqa", "load": "expvqa", "explore": "explorer.app", "Run": "pipeline.run"}


def __getattr__(name: str):
    """Import torch and transformers only when a public name is asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    """Complete the public names on Tab."""
    return sorted([*globals(), *__all__])
