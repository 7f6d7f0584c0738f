"""Runs of all notebooks and the command line; nothing is imported here, so that `expvqa --help` is quick."""

__all__ = ["checkout", "cli", "profiles", "reproduce", "run"]
