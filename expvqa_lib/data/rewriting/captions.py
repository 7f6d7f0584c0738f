"""Q1 and Q2 answers in a language model's words, from the rules' answers, as Exp-BLIP wrote its captions with GPT-3.5.

The steps are the paper's: a one-shot prompt turns action units into a description of the actions; a zero-shot prompt fuses that with the
emotion, pointing out how it is inferred; a face without action units gets one fixed description. The wording of the prompts and of the
worked example is ours. What `caption_checks` finds at fault is asked again, with the reason, and then left to the rules.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, replace

import datasets
import pandas as pd

from ...errors import TableError
from ...facs import ACTION_UNITS
from ...files import fingerprint
from ...questions import NO, Q1_ACTIONS, answer_q1, ask_q1, read_aus
from ..pairs import FEATURES, LANGUAGE_MODEL, PSEUDO, RULES, to_dataset
from .chat import Chat
from .checks import faults

AT_REST = "The face looks relaxed, and no facial action stands out."
"""The answer for a face of which no labelled action unit is present."""

_DEFINITIONS = "\n".join(
    f"{unit.name}: {unit.noun} (the person {unit.third_person})" for unit in ACTION_UNITS.values()
)
ROLE = f"""You are an expert who describes what the muscles of a face do. These are all facial actions, each with its code and name:
{_DEFINITIONS}

You are given the codes of the actions that one face shows, and you describe this face.
- Describe each given action and no other. Do not say what is absent.
- Tell each action in the words of its name or of what the person does, so that it can be recognised.
- Name no emotion, feeling or mood, and do not hint at one.
- Write neither codes nor numbers nor the word AU.
- Write 1 to 9 sentences of plain English prose."""
EXAMPLE = (
    "Which facial actions does a face with AU4, AU15 and AU17 show?",
    "The person lowers the brow, which brings it closer to the eyes. Below, the person depresses the lip corner on both sides, and the "
    "raised chin pushes against the mouth.",
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


@dataclass
class Report:
    """What became of the captions that were wanted, and what it took."""

    wanted: int = 0  # different captions
    accepted: int = 0  # at once
    accepted_again: int = 0  # after one or more rejections
    fallen_back: int = 0  # to the rules
    rejected: dict[str, int] = field(
        default_factory=Counter
    )  # answers, by fault; one answer may have several
    requests: int = 0  # to the server, failed ones included
    cached: int = 0  # answers read from disk
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    rows: dict[str, int] = field(default_factory=Counter)  # of the pairs, by source

    def __str__(self) -> str:
        lines = [
            f"{name.replace('_', ' ')}: {value}"
            for name, value in asdict(self).items()
            if not isinstance(value, dict)
        ]
        for name in ("rejected", "rows"):
            lines += [f"{name}, {key}: {n}" for key, n in sorted(getattr(self, name).items())]
        return "\n".join(lines)


def rewrite(
    pairs: datasets.DatasetDict, chat: Chat, *, variants: int = 1, tries: int = 3
) -> tuple[datasets.DatasetDict, Report]:
    """Put the Q1 and Q2 answers that the rules wrote into a language model's words; Q3 and whatever the rules did not write stay.

    Each different answer is asked for once, however many faces share it. A face whose action units were labelled and none found
    present is described as `AT_REST`, in a Q1 pair of its own where it has none.

    Args:
        pairs: from `pairs.build`.
        chat: the language model.
        variants: ask for so many captions of each kind (the second and later with the seeds 1, 2, ...), and give each face one.
        tries: ask so often in all, before a caption is left to the rules.

    Raises:
        TableError: a column of `pairs.FEATURES` is missing.
        ServerError: see `Chat.ask`; the answers so far are kept, and the same call goes on.
    """
    for name, split in pairs.items():
        if missing := sorted(set(FEATURES) - set(split.column_names)):
            raise TableError(
                f"pairs, split {name}: columns {missing} are missing; expected those of pairs.build, {list(FEATURES)}"
            )
    writer = _Writer(chat, tries)
    told = {
        text: labels
        for split in pairs.values()
        for text in split.unique("text_output")
        if (labels := _labels(text))
    }
    chosen = [(*labels, k) for labels in dict.fromkeys(told.values()) for k in range(variants)]
    sets = list(dict.fromkeys((present, k) for present, _, k in chosen))
    actions = dict(
        zip(sets, chat.map(lambda key: writer.describe(*key), sets, "describing actions"), strict=True)
    )
    mixed = [key for key in chosen if key[1]]
    fused = chat.map(lambda key: writer.fuse(actions[key[0], key[2]], *key), mixed, "fusing with emotions")
    written = {(present, None, k): text for (present, k), text in actions.items()} | dict(
        zip(mixed, fused, strict=True)
    )
    new = datasets.DatasetDict(
        {
            name: _apply(split, told, written, variants) if len(split) else split
            for name, split in pairs.items()
        }
    )
    return new, writer.report(new)


class _Writer:
    """Asks for one caption at a time, from several threads, and keeps count."""

    def __init__(self, chat: Chat, tries: int) -> None:
        self.chat, self.tries, self._report, self._lock = chat, tries, Report(), threading.Lock()

    def describe(self, present: tuple[int, ...], variant: int) -> str | None:
        """A description of the actions; None where it is left to the rules."""
        codes = " and ".join(filter(None, (", ".join(f"AU{n}" for n in present[:-1]), f"AU{present[-1]}")))
        question = f"Which facial actions does a face with {codes} show?"
        shot = [_said("system", ROLE), _said("user", EXAMPLE[0]), _said("assistant", EXAMPLE[1])]
        return self._caption([*shot, _said("user", question)], present, None, variant)

    def fuse(self, actions: str | None, present: tuple[int, ...], emotion: str, variant: int) -> str | None:
        """The description with the emotion worked in; None where it is left to the rules."""
        feeling = answer_q1([], emotion)
        words = feeling.removeprefix("The face shows ").removesuffix(".")
        prompt = FUSION.format(actions=actions or answer_q1(present, None), emotion=feeling, feeling=words)
        return self._caption([_said("user", prompt)], present, emotion, variant)

    def _caption(
        self, messages: list[dict], present: tuple[int, ...], emotion: str | None, variant: int
    ) -> str | None:
        for attempt in range(self.tries):
            answer = self.chat.ask(messages, variant or None)
            text = answer.text.strip()
            wrong = faults(text, present, emotion)
            if answer.finish == "length":
                wrong["length"] = "It was cut off: write less."
            self._count(wrong, attempt)
            if not wrong:
                return text
            messages = [
                *messages,
                _said("assistant", text or "..."),
                _said("user", AGAIN.format(reasons=" ".join(wrong.values()))),
            ]
        return None

    def _count(self, wrong: dict[str, str], attempt: int) -> None:
        with self._lock:
            self._report.rejected.update(wrong.keys())
            self._report.wanted += not attempt
            self._report.accepted += not wrong and not attempt
            self._report.accepted_again += not wrong and attempt > 0
            self._report.fallen_back += bool(wrong) and attempt + 1 == self.tries

    def report(self, pairs: datasets.DatasetDict) -> Report:
        """What was counted, here, by the chat, and in the pairs as they are now."""
        counted = {
            name: getattr(self.chat, name)
            for name in ("requests", "cached", "tokens_in", "tokens_out", "cost")
        }
        rows = sum(
            (Counter(split.select_columns("source").to_pandas()["source"]) for split in pairs.values()),
            Counter(),
        )
        return replace(self._report, **counted, rows=rows)


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _labels(text: str) -> tuple[tuple[int, ...], str | None] | None:
    """The present AUs and the emotion from which the rules wrote an answer; None where they did not, or where no AU is in it."""
    actions, _, feeling = text.removesuffix(".").partition(", which suggests ")
    present = tuple(sorted(read_aus(actions)[0]))
    emotion = "neutral" if feeling == "a neutral expression" else re.sub(", | and ", "+", feeling) or None
    return (present, emotion) if present and answer_q1(present, emotion) == text else None


def _apply(split: datasets.Dataset, told: dict, written: dict, variants: int) -> datasets.Dataset:
    """The split with its answers replaced; what stays is not copied, and pairs of faces at rest are added at the end."""
    frame = split.select_columns(["image", "image_id", "question_type", "text_output", "source"]).to_pandas()
    by_rules = frame[frame["source"] == RULES]
    at_rest, with_q1 = _at_rest(by_rules), set(by_rules.loc[by_rules["question_type"] == "Q1", "image"])
    texts, sources = [], []
    for image, name, kind, text, source in frame.itertuples(index=False):
        labels = told.get(text) if source in (RULES, PSEUDO) else None
        if labels and (new := written[*labels, _chance(name, variants)]):
            text, source = new, LANGUAGE_MODEL if source == RULES else source
        elif kind == "Q1" and source == RULES and image in at_rest:
            text = f"{AT_REST} {text}"
        texts.append(text)
        sources.append(source)
    new = {"text_output": texts, "source": sources}
    replaced = datasets.Dataset.from_dict(
        new, features=datasets.Features({name: split.features[name] for name in new})
    )
    split = datasets.concatenate_datasets([split.remove_columns(list(new)), replaced], axis=1).select_columns(
        split.column_names
    )
    if not (lacking := at_rest - with_q1):
        return split
    first = split.select(frame.index[frame["image"].isin(lacking) & ~frame["image"].duplicated()])
    rows = [_q1_at_rest(row) for row in first]
    return datasets.concatenate_datasets([split, to_dataset(rows)])


def _at_rest(frame: pd.DataFrame) -> set[str]:
    """Images whose AUs are labelled (they have Q2) and of which nothing but rest, or a neutral expression, is told."""
    kind, text = frame["question_type"], frame["text_output"]
    denies = (kind == "Q2") & text.str.startswith("The person does not ")
    quiet = denies | (kind == "Q3") & (text == NO) | (kind == "Q1") & (text == answer_q1([], "neutral"))
    return set(frame.loc[denies, "image"]) - set(frame.loc[~quiet, "image"])


def _q1_at_rest(row: dict) -> dict:
    question = ask_q1(_chance(row["image_id"], len(Q1_ACTIONS)), emotion=False)
    return row | {
        "text_input": question,
        "text_output": AT_REST,
        "area": None,
        "question_type": "Q1",
        "au": None,
        "source": RULES,
    }


def _chance(name: str, n: int) -> int:
    """A number below n that a face always draws."""
    return int(fingerprint(name), 16) % n
