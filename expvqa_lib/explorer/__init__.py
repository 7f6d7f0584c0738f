"""Widgets to ask a model about a drawn face or a photo, in a notebook."""

from .app import Explorer, explore

__all__ = ["Explorer", "explore"]
