"""The one vocabulary: action units (AUs) of the Facial Action Coding System, areas of the face, and emotions.

Noun and verb phrases are those of the Exp-BLIP supplement (the same list as
`assets/published/au_descriptions.csv`); areas and prototypes follow the FACS manual and EMFACS (Ekman,
Friesen and Hager 2002).
"""

from dataclasses import dataclass

from .errors import SettingsError


@dataclass(frozen=True)
class ActionUnit:
    """One action unit: its FACS number, noun and verb phrases, and the area of the face that it moves."""

    number: int
    noun: str
    verb: str
    area: str

    @property
    def name(self) -> str:
        """`AU12`."""
        return f"AU{self.number}"

    @property
    def third_person(self) -> str:
        """The verb phrase in the third person: `pulls lip corner`."""
        verb, _, rest = self.verb.partition(" ")
        return verb + ("es" if verb.endswith(("s", "ch", "sh")) else "s") + " " + rest


AREAS = ("brows", "eyes and cheeks", "nose", "lip corners", "lips", "chin and jaw", "neck")

ACTION_UNITS: dict[int, ActionUnit] = {
    unit.number: unit
    for unit in (
        ActionUnit(1, "inner brow raiser", "raise inner eyebrow", "brows"),
        ActionUnit(2, "outer brow raiser", "raise outer eyebrow", "brows"),
        ActionUnit(4, "brow lowerer", "lower brow", "brows"),
        ActionUnit(5, "upper lid raiser", "raise upper lid", "eyes and cheeks"),
        ActionUnit(6, "cheek raiser", "raise cheek", "eyes and cheeks"),
        ActionUnit(7, "lid tightener", "tighten lids", "eyes and cheeks"),
        ActionUnit(8, "lips toward each other", "pull lips toward each other", "lips"),
        ActionUnit(9, "nose wrinkler", "wrinkle nose", "nose"),
        ActionUnit(10, "upper lip raiser", "raise upper lip", "lips"),
        ActionUnit(11, "nasolabial deepener", "deepen nasolabial", "nose"),
        ActionUnit(12, "lip corner puller", "pull lip corner", "lip corners"),
        ActionUnit(14, "dimpler", "tighten lip corner", "lip corners"),
        ActionUnit(15, "lip corner depressor", "depress lip corner", "lip corners"),
        ActionUnit(16, "lower lip depressor", "depress lower lip", "lips"),
        ActionUnit(17, "chin raiser", "raise chin", "chin and jaw"),
        ActionUnit(18, "lip pucker", "pucker lips", "lips"),
        ActionUnit(19, "tongue show", "stick tongue out", "lips"),
        ActionUnit(20, "lip stretch", "stretch lips", "lip corners"),
        ActionUnit(21, "neck tightener", "tighten neck", "neck"),
        ActionUnit(22, "lip funneler", "show lip funneler", "lips"),
        ActionUnit(23, "lip tightener", "tighten lips", "lips"),
        ActionUnit(24, "lip pressor", "press lips", "lips"),
        ActionUnit(25, "lips part", "separate lips", "lips"),
        ActionUnit(26, "jaw drop", "drop jaw", "chin and jaw"),
        ActionUnit(27, "mouth stretch", "stretch mouth", "chin and jaw"),
        ActionUnit(28, "lip suck", "suck lips", "lips"),
        ActionUnit(43, "eyes closed", "close eyes", "eyes and cheeks"),
    )
}

BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)


@dataclass(frozen=True)
class Emotion:
    """An emotion category of AffectNet, the words that name it, and the AUs of its FACS prototype."""

    name: str
    adjective: str
    prototype: tuple[int, ...]


EMOTIONS: dict[str, Emotion] = {
    emotion.name: emotion
    for emotion in (
        Emotion("neutral", "neutral", ()),
        Emotion("happiness", "happy", (6, 12, 25)),
        Emotion("sadness", "sad", (1, 4, 15, 17)),
        Emotion("surprise", "surprised", (1, 2, 5, 25, 26)),
        Emotion("fear", "afraid", (1, 2, 4, 5, 20, 25)),
        Emotion("disgust", "disgusted", (9, 10, 17)),
        Emotion("anger", "angry", (4, 5, 7, 23, 24)),
        Emotion("contempt", "contemptuous", (12, 14)),
    )
}


def au_column(number: int) -> str:
    """Return the face table's column of an AU, `AU12`.

    Raises:
        SettingsError: the number is not one of `ACTION_UNITS`.
    """
    return action_unit(number).name


def action_unit(number: int) -> ActionUnit:
    """Return one action unit by its FACS number.

    Raises:
        SettingsError: the number is not one of `ACTION_UNITS`.
    """
    try:
        return ACTION_UNITS[int(number)]
    except (KeyError, ValueError, TypeError, OverflowError):
        raise SettingsError(
            f"AU {number!r} is unknown; known are {', '.join(map(str, ACTION_UNITS))}"
        ) from None
