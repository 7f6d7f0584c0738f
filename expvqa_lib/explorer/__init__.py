"""Widgets to ask a model about a rendered face or a photo, in a notebook."""

from .app import Explorer, explore

__all__ = ["Explorer", "explore"]
