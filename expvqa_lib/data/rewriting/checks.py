"""Whether a sentence about a face may stand: does it tell the given facial actions, the given emotion, and nothing else?

Rules cannot understand a sentence, but they know the vocabulary: every action by its noun and verb phrases in all inflections, the parts
of the face, and the words for emotions. What they cannot recognise is refused, since there is a rule-based caption to fall back on.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ...facs import ACTION_UNITS, EMOTIONS

EMOTION_WORDS = {
    "neutral": "neutral",
    "happiness": "happy|happi|joy|glad|delight|cheer|amus",
    "sadness": "sad|sorrow|unhapp|grief|griev|melanchol|gloom",
    "surprise": "surpris|astonish|amaze|startl|shock",
    "fear": "fear|afraid|scare|fright|terrif|terror|anxi",
    "disgust": "disgust|revuls|repuls|revolt",
    "anger": "anger|angry|angri|furious|fury|rage|irritat|annoy",
    "contempt": "contempt|disdain|scorn",
}
"""Beginnings of the words that name each emotion."""
_EMOTIONS = {name: re.compile(rf"\b(?:{words})\w*", re.I) for name, words in EMOTION_WORDS.items()}
_FEELING = re.compile(r"\b(?:emotion|feel|mood|smil|frown|laugh|cry|cries|grimac|sneer|pout)\w*", re.I)
"""What an action caption must not say either: it judges the face, or names several actions in a word that is in no definition."""
_CODE = re.compile(r"\bAUs?\b|\baction units?\b|\bAU ?\d|\d", re.I)
_NEGATION = re.compile(r"\b(?:no|not|none|without|neither|nor|never|absent|cannot)\b|n['’]t\b", re.I)
_PLAIN = re.compile(r"[A-Za-z0-9 .,;:'’\"“”()!?–—-]+")

# ------------------------------------------------------------------------------------------------------- reading actions

_PARTS = {"brow", "lid", "eyes", "cheek", "nose", "lips", "mouth", "chin", "jaw", "tongue", "neck"}
_SKIPPED = set(re.findall(r"\w+", "the a an his her their its this both is are be being up upward upwards"))
_OF = re.compile(r"\b(\w+) of (?:(?:the|his|her|their|both) )*(\w+)")


def _stem(word: str) -> str:
    """Fold the inflections of one word: raises, raised and raising; press and presses."""
    word = {"stuck": "stick", "eyelid": "lid", "eyelids": "lid"}.get(word, word.replace("eyebrow", "brow"))
    stem = re.sub(r"(?:ing|ed|es|s|e)$", "", word) if len(word) > 3 else word
    return re.sub(r"(.)\1$", r"\1", stem)


def _stems(text: str) -> list[str]:
    """The words of a text as stems, without articles and adverbs, `corners of the lips` as `lip corners`; punctuation stays."""
    text = _OF.sub(r"\2 \1", text.lower()).replace("mouth corner", "lip corner")
    words = re.findall(r"[a-z]+|[^\sa-z]", text)
    return [_stem(word) for word in words if word not in _SKIPPED and not word.endswith("ly")]


def _phrases() -> dict[str, int]:
    """Each way to name an action, as a string of stems: its noun, its verb with the object after it or, in the passive, before it."""
    found = {}
    for unit in ACTION_UNITS.values():
        verb, *rest = _stems(unit.verb)
        for words in (_stems(unit.noun), [verb, *rest], [*rest, verb]):
            found[" ".join(words)] = unit.number
    return found


_NUMBERS = _phrases()
# the longest first, so that "tightens lip corner" is not also "tightens lips"
_ACTION = re.compile(rf" ({'|'.join(sorted(map(re.escape, _NUMBERS), key=len, reverse=True))})(?= )")
_PART_STEMS = {_stem(part): part for part in _PARTS}


def read_actions(text: str) -> tuple[set[int], set[int]]:
    """Read the AUs that a text names at all, and those of them that it names in a sentence with a negation."""
    named, denied = set(), set()
    for sentence in re.split(r"[.!?;]", text):
        here = {_NUMBERS[phrase] for phrase in _ACTION.findall(f" {' '.join(_stems(sentence))} ")}
        named |= here
        denied |= here if _NEGATION.search(sentence) else set()
    return named, denied


def read_emotions(text: str) -> set[str]:
    """Read all emotions of `facs.EMOTIONS` that a text names."""
    return {name for name, words in _EMOTIONS.items() if words.search(text)}


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
    named, denied = read_actions(text)
    units = [ACTION_UNITS[n] for n in present]
    moved = {_stem(word) for u in units for word in re.findall(r"\w+", f"{u.noun} {u.verb} {u.area}")}
    moved |= {_stem("eyes")} if "brow" in moved else set()
    moved |= {"mouth"} if moved & {"lip", "chin", "jaw"} else set()
    found = {}
    if missing := [ACTION_UNITS[n].verb for n in present if n not in named]:
        found["missing action"] = (
            f"Name these actions in the words of their definitions: {', '.join(missing)}."
        )
    if invented := [ACTION_UNITS[n].noun for n in sorted(named - set(present))]:
        found["invented action"] = f"These actions were not given: {', '.join(invented)}."
    elif parts := sorted(
        {_PART_STEMS[stem] for stem in _stems(text) if stem in _PART_STEMS and stem not in moved}
    ):
        found["invented action"] = f"No given action moves the {', '.join(parts)}: leave that out."
    if denied:
        found["denied action"] = "Do not say what is absent."
    return found


def _feeling(text: str, emotion: str | None) -> dict[str, str]:
    told = read_emotions(text)
    if emotion is None:
        words = [
            word.group()
            for word in (*(_EMOTIONS[name].search(text) for name in sorted(told)), _FEELING.search(text))
            if word
        ]
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
