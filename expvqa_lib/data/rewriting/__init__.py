"""Answers to Q1 and Q2 in a language model's words."""

from .captions import caption_faults, rewrite
from .chat import Chat

__all__ = ["Chat", "caption_faults", "rewrite"]
