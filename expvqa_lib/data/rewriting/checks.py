"""Whether a sentence about a face may stand: does it tell the given facial actions, the given emotion, and nothing else?

Rules cannot understand a sentence, but they know the vocabulary: every action by its noun and verb phrases in all inflections, the parts
of the face, and the words for emotions. What they cannot recognise is refused, since there is a rule-based caption to fall back on.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ...facs import ACTION_UNITS, EMOTIONS
from ...questions import read_aus, read_emotions, stem, stems

_FEELING = re.compile(r"\b(?:emotion|feel|mood|smil|frown|laugh|cry|cries|grimac|sneer|pout)\w*", re.I)
"""What an action caption must not say either: it judges the face, or names several actions in a word that is in no definition."""
_CODE = re.compile(r"\bAUs?\b|\baction units?\b|\bAU ?\d|\d", re.I)
_PLAIN = re.compile(r"[A-Za-z0-9 .,;:'’\"“”()!?–—-]+")

_PARTS = {"brow", "lid", "eyes", "cheek", "nose", "lips", "mouth", "chin", "jaw", "tongue", "neck"}
_PART_STEMS = {stem(part): part for part in _PARTS}


# ---------------------------------------------------------------------------------------------------------------- checks


def faults(text: str, present: Collection[int], emotion: str | None = None) -> dict[str, str]:
    """Say what is wrong with a caption of a face: the kind of each fault, and a sentence to whoever wrote it; empty where it may stand.

    Args:
        text: the caption.
        present: numbers of the AUs that it must tell, all of them and no others.
        emotion: the emotion that it must tell, several joined by "+"; None where it must tell none.
    """
    return _form(text) | _actions(text, present) | _feeling(text, emotion)


def _form(text: str) -> dict[str, str]:
    found = {}
    sentences = [part for part in re.split(r"[.!?]", text) if re.search(r"[A-Za-z]", part)]
    if not 1 <= len(sentences) <= 9 or not re.search(r"[.!?][\"”')]*$", text):
        found["length"] = "Write 1 to 9 whole sentences, the last with its full stop."
    if not _PLAIN.fullmatch(text):
        found["form"] = "Write plain English prose, without lists, marks or line breaks."
    if _CODE.search(text):
        found["code"] = "Write no codes, no numbers and not the word AU."
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[k : k + 6]) for k in range(len(words) - 5)]
    if len(set(runs)) < len(runs):
        found["repetition"] = "Do not repeat yourself."
    return found


def _actions(text: str, present: Collection[int]) -> dict[str, str]:
    given, denied = read_aus(text)
    named = given | denied
    units = [ACTION_UNITS[n] for n in present]
    moved = {stem(word) for u in units for word in re.findall(r"\w+", f"{u.noun} {u.verb} {u.area}")}
    moved |= {stem("eyes")} if "brow" in moved else set()
    moved |= {"mouth"} if moved & {"lip", "chin", "jaw"} else set()
    found = {}
    if missing := [ACTION_UNITS[n].verb for n in present if n not in named]:
        found["missing action"] = (
            f"Name these actions in the words of their definitions: {', '.join(missing)}."
        )
    if invented := [ACTION_UNITS[n].noun for n in sorted(named - set(present))]:
        found["invented action"] = f"These actions were not given: {', '.join(invented)}."
    elif parts := sorted(
        {_PART_STEMS[word] for word in stems(text) if word in _PART_STEMS and word not in moved}
    ):
        found["invented action"] = f"No given action moves the {', '.join(parts)}: leave that out."
    if denied:
        found["denied action"] = "Do not say what is absent."
    return found


def _feeling(text: str, emotion: str | None) -> dict[str, str]:
    told = set(read_emotions(text))
    if emotion is None:
        feeling = _FEELING.search(text)
        words = [*sorted(told), *([feeling.group()] if feeling else [])]
        return (
            {"emotion word": f"Name no emotion and do not judge the face; you wrote {', '.join(words)}."}
            if words
            else {}
        )
    wanted = set(emotion.split("+"))
    missing = {word for word in wanted - told if word in EMOTIONS or word.lower() not in text.lower()}
    if missing or told - wanted:
        return {"wrong emotion": f"Name {' and '.join(sorted(wanted))} and no other emotion."}
    return {}
