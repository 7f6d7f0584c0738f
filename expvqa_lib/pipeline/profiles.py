"""Profiles: every setting of a run in one frozen dataclass, chosen by name."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import SettingsError
from ..files import fingerprint
from ..synthfacs import CorpusSizes
from ..training.recipe import PAPER, Recipe

BASE = Path(__file__).parents[1] / "assets" / "base"
"""The tiny base of the quick profile."""


AU_CORPORA = ("synth_lab", "BP4D", "DISFA", "RAF-AU", "EmotioNet")
EMOTION_CORPORA = ("synth_emotion", "AffectNet", "RAF-DB-basic")
"""Models are measured on the first of each that is there, else on a table of one's own."""

COMMITTED = ("quick", "full")
"""Profiles whose figures are those of the checkout's `figures/`."""


@dataclass(frozen=True)
class Profile:
    """Settings of one run from faces to figures."""

    name: str
    corpora: CorpusSizes | None = CorpusSizes()  # None: real data
    exp_vqa: Recipe = Recipe(  # augmented by flips alone
        steps=1300, learning_rate=8e-4, vision_learning_rate=2.5e-4, crop=(1.0, 1.0)
    )
    exp_vqa_fz: Recipe = Recipe(steps=1300, learning_rate=1.5e-3, augment=False)
    unseen: tuple[int, ...] = (5, 9, 20, 25, 26)  # AUs that no Q3 of training asks about, except Exp-VQA's
    exp_vqa_start: str = "base"  # what Exp-VQA starts from
    ablations: bool = False  # whether notebook 11, which trains them, belongs to the run
    left_out: tuple[int, ...] = (12, 4)  # AUs that a model each is never asked about in training
    explained: int = 32  # faces an AU in the attention measurements
    probed: int | None = 600  # faces that a linear probe is trained on; None: all
    probed_finetuned: int | None = 400  # faces that a fine-tuned probe is trained on; None: all
    probe_epochs: int = 0  # most epochs of fine-tuned probes; 0: none
    resamples: int = 1000  # of the bootstrap
    seed: int = 42
    base: str = str(BASE)  # model folder or hub name that fine-tuning starts from


PROFILES = {
    "quick": Profile("quick", exp_vqa_start="exp_vqa_fz"),
    "smoke": Profile(
        "smoke",
        exp_vqa_start="exp_vqa_fz",
        corpora=CorpusSizes(lab=(6, 2, 3), wild=(48, 8, 60), emotion=(48, 8, 32), videos=1),
        exp_vqa=Recipe(steps=4, images=8, pairs_per_image=4, validate_every=2),
        exp_vqa_fz=Recipe(steps=4, images=8, pairs_per_image=4, validate_every=2),
        ablations=True,
        probe_epochs=1,
        left_out=(12,),
        explained=2,
        probed=48,
        probed_finetuned=48,
        resamples=50,
    ),
    "paper": Profile(
        "paper",
        base="Salesforce/instructblip-vicuna-7b",
        corpora=None,
        exp_vqa=PAPER,
        exp_vqa_fz=PAPER,
        unseen=(),
        probed=None,
        probed_finetuned=None,
    ),
}
PROFILES |= {
    full: replace(PROFILES[name], name=full, ablations=True, probe_epochs=20)
    for name, full in (("quick", "full"), ("paper", "paper-full"))
}
"""`quick` makes the committed figures; `smoke` runs the same code on a miniature in the tests; `paper` is the
paper's own scale, on data sets of one's own. `full` and `paper-full` add ablations and fine-tuned probes."""


def get(name: str) -> Profile:
    """Return a profile by its name.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in PROFILES:
        raise SettingsError(f"profile {name!r} is unknown; known are {', '.join(PROFILES)}")
    return PROFILES[name]


def with_data(name: str, data_root: str | None) -> Profile:
    """Return a profile that draws its faces, or whose data sets are below `data_root`.

    Raises:
        SettingsError: the profile is unknown, or the folder is missing or not needed.
    """
    profile = get(name)
    if profile.corpora and data_root:
        raise SettingsError(
            f"data_root={data_root!r}: profile {name!r} draws its faces; paper reads data sets"
        )
    if not profile.corpora and not data_root:
        raise SettingsError(f"profile {name!r} reads data sets; give their folder with --data-root DIR")
    if data_root and not Path(data_root).is_dir():
        raise SettingsError(
            f"data root {data_root}: no such folder; give the folder that holds the data sets"
        )
    return profile


def base_fingerprint(base: str) -> str:
    """Changes with a small model's content, a large one's file sizes and times, or the hub's name."""
    files = sorted(Path(base).glob("*.safetensors"))
    if sum(path.stat().st_size for path in files) < 10**9:
        return fingerprint(*(path.read_bytes() for path in files)) if files else fingerprint(base)
    return fingerprint([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
