"""Q1 and Q2 answers in a language model's words, as Exp-BLIP wrote captions with GPT-3.5.

The steps are the paper's: a one-shot prompt turns AUs into a description of the actions; a zero-shot prompt
fuses it with the emotion and points out how the emotion is inferred; a face without AUs gets a fixed
description. The prompts' wording and the worked example are ours. A caption with faults is requested again,
with the reasons, then left to the rules.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

import datasets
import pandas as pd

from ..facs import ACTION_UNITS, EMOTIONS
from ..files import fingerprint
from ..questions import NO, Q1_ACTIONS, answer_q1, join_phrases, read_aus, read_emotions
from .chat import Chat
from .pairs import LANGUAGE_MODEL, PSEUDO, RULES

TRIES = 3
"""Requests for one caption, before it is left to the rules."""
AT_REST = "The face looks relaxed, and no facial action stands out."
"""The answer for a face of which no labelled action unit is present."""

_DEFINITIONS = "\n".join(
    f"{unit.name}: {unit.noun} (the person {unit.third_person})" for unit in ACTION_UNITS.values()
)
ROLE = f"""You are an expert who describes what the muscles of a face do.
These are all facial actions, each with its code and name:
{_DEFINITIONS}

You are given the codes of the actions that one face shows, and you describe this face.
- Describe each given action and no other. Do not say what is absent.
- Tell each action in the words of its name or of what the person does, so that it can be recognised.
- Name no emotion, feeling or mood, and do not hint at one.
- Write neither codes nor numbers nor the word AU.
- Write 1 to 9 sentences of plain English prose."""
EXAMPLE = (
    "Which facial actions does a face with AU4, AU15 and AU17 show?",
    "The person lowers the brow, which brings it closer to the eyes. Below, the person depresses the lip "
    "corner on both sides, and the raised chin pushes against the mouth.",
)
FUSION = """Here are two statements about one face.
Facial actions: {actions}
Emotion: {emotion}
Combine them into one description, and point out how each emotion is inferred from the facial actions.
- Tell all of these facial actions in the same words, and no others. Do not say what is absent.
- Name {feeling} and no other emotion.
- Write neither codes nor numbers nor the word AU.
- Write 1 to 9 sentences of plain English prose."""
AGAIN = "That cannot stay as it is. {reasons} Write the whole description again, by all of the rules."


def rewrite(pairs: datasets.DatasetDict, chat: Chat) -> tuple[datasets.DatasetDict, pd.Series]:
    """Put the Q1 and Q2 answers of the rules into a language model's words; Q3 and answers by others stay.

    Each different answer is requested once, however many faces share it. A face without any present AU gets
    the description `AT_REST`, in a Q1 pair of its own where it has none.

    Args:
        pairs: from `build_pairs`.
        chat: the language model.

    Returns:
        The pairs, and counts of captions, faults, requests, tokens, cost and pairs by source.

    Raises:
        ServerError: see `Chat.ask`; the same call goes on.
    """
    whole = datasets.concatenate_datasets(list(pairs.values())).select_columns(["text_output", "source"])
    texts = whole.to_pandas().query("source in (@RULES, @PSEUDO)")["text_output"].unique()
    labels = {text: kind for text in texts if (kind := _labels(text))}
    captions = {}
    alone = list(dict.fromkeys((present, None) for present, _ in labels.values()))
    fused = list(dict.fromkeys(kind for kind in labels.values() if kind[1]))
    for kinds, label in ((alone, "describing actions"), (fused, "fusing with emotions")):
        answers = chat.map(lambda kind: _caption(chat, captions, *kind), kinds, label)
        captions.update(zip(kinds, answers, strict=True))
    texts = {text: captions[kind][0] for text, kind in labels.items() if captions[kind][0]}
    new = {name: _replace(split, texts) if len(split) else split for name, split in pairs.items()}
    counts = Counter(captions=len(captions))
    for text, rejected in captions.values():
        counts["left to the rules" if text is None else "accepted again" if rejected else "accepted"] += 1
        counts.update(f"rejected: {kind}" for kind in rejected)
    for split in new.values():
        counts.update(f"pairs by {source}" for source in split["source"])
    return datasets.DatasetDict(new), pd.Series(dict(counts) | dict(chat.counts), dtype=object)


def _caption(
    chat: Chat, captions: Mapping[tuple, tuple], present: tuple[int, ...], emotion: str | None
) -> tuple[str | None, list[str]]:
    """Return a caption, None where it is left to the rules, and faults of rejected ones before it.

    With an emotion, it is fused with the one of the actions alone, which is among `captions`.
    """
    if emotion:
        feeling, actions = answer_q1([], emotion), captions[present, None][0] or answer_q1(present, None)
        words = feeling.removeprefix("The face shows ").removesuffix(".")
        prompt = (("user", FUSION.format(actions=actions, emotion=feeling, feeling=words)),)
    else:
        question = f"Which facial actions does a face with {join_phrases([f'AU{n}' for n in present])} show?"
        prompt = (("system", ROLE), ("user", EXAMPLE[0]), ("assistant", EXAMPLE[1]), ("user", question))
    messages, rejected = [{"role": role, "content": content} for role, content in prompt], []
    for _ in range(TRIES):
        text, finish, _ = chat.ask(messages)
        text = text.strip()
        faults = caption_faults(text, present, emotion)
        if finish == "length":
            faults["length"] = "Write less: it was cut off."
        if not faults:
            return text, rejected
        rejected += faults
        messages.append({"role": "assistant", "content": text or "..."})
        messages.append({"role": "user", "content": AGAIN.format(reasons=" ".join(faults.values()))})
    return None, rejected


def _labels(text: str) -> tuple[tuple[int, ...], str | None] | None:
    """Read AUs and emotion where the rules wrote an answer with AUs; None elsewhere."""
    actions, _, feeling = text.removesuffix(".").partition(", which suggests ")
    present = tuple(sorted(read_aus(actions)[0]))
    emotion = "neutral" if feeling == "a neutral expression" else re.sub(", | and ", "+", feeling) or None
    return (present, emotion) if present and answer_q1(present, emotion) == text else None


def _replace(split: datasets.Dataset, texts: dict[str, str]) -> datasets.Dataset:
    """Replace the rules' answers of a split, and describe faces at rest; new pairs come at the end."""
    frame = split.to_pandas()
    rules, kind, text = frame["source"] == RULES, frame["question_type"], frame["text_output"]
    denies = (kind == "Q2") & text.str.startswith("The person does not ")
    quiet = denies | (kind == "Q3") & (text == NO) | (kind == "Q1") & (text == answer_q1([], "neutral"))
    at_rest = set(frame.loc[rules & denies, "image"]) - set(frame.loc[rules & ~quiet, "image"])
    q1 = rules & (kind == "Q1")
    new = (rules | (frame["source"] == PSEUDO)) & text.isin(list(texts))
    text = text.mask(q1 & frame["image"].isin(at_rest), AT_REST + " " + text)
    frame["text_output"] = text.mask(new, text.map(lambda old: texts.get(old, old)))
    frame["source"] = frame["source"].mask(new & rules, LANGUAGE_MODEL)
    lacking = frame[frame["image"].isin(at_rest - set(frame.loc[q1, "image"]))].drop_duplicates("image")
    lacking = lacking.assign(
        text_input=[Q1_ACTIONS[int(fingerprint(name), 16) % len(Q1_ACTIONS)] for name in lacking["image_id"]],
        text_output=AT_REST,
        question_type="Q1",
        area=None,
        au=None,
        source=RULES,
    )
    return datasets.Dataset.from_pandas(pd.concat([frame, lacking]), split.features, preserve_index=False)


_FORM = re.compile(r"[A-Za-z .,;:'’\"“”()!?–—-]+[.!?][\"”')]*")
_CODE = re.compile(r"\bAUs?\b|\baction units?\b", re.IGNORECASE)
_FEELING = re.compile(
    r"\b(?:emotion|feel|mood|smil|frown|laugh|cry|cries|grimac|sneer|pout)\w*", re.IGNORECASE
)
"""Words that judge the face, or name several actions at once."""


def caption_faults(text: str, present: Collection[int], emotion: str | None = None) -> dict[str, str]:
    """Check a caption of a face: for each kind of fault, a sentence to the writer.

    Args:
        text: the caption.
        present: numbers of the AUs that it must describe, and no others.
        emotion: the emotion that it must name, several joined by "+"; None where it must name none.
    """
    given, denied = read_aus(text)
    missing = [ACTION_UNITS[n].verb for n in present if n not in given | denied]
    invented = [ACTION_UNITS[n].noun for n in sorted((given | denied) - set(present))]
    named, wanted = set(read_emotions(text)), set(emotion.split("+")) if emotion else set()
    lacking = {word for word in wanted - named if word in EMOTIONS or word.lower() not in text.lower()}
    faults = {
        "form": (
            not _FORM.fullmatch(text) or _CODE.search(text),
            "Write whole sentences of plain English prose, without lists, codes, numbers or the word AU.",
        ),
        "missing action": (
            missing,
            f"Name these actions in the words of their definitions: {', '.join(missing)}.",
        ),
        "invented action": (invented, f"These actions were not given: {', '.join(invented)}."),
        "denied action": (denied, "Do not say what is absent."),
        "emotion word": (
            emotion is None and (named or _FEELING.search(text)),
            "Name no emotion and do not judge the face.",
        ),
        "wrong emotion": (
            emotion is not None and (lacking or named - wanted),
            f"Name {' and '.join(sorted(wanted))} and no other emotion.",
        ),
    }
    return {kind: message for kind, (wrong, message) in faults.items() if wrong}
