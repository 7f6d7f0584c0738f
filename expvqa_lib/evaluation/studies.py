"""What the representations hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from ..data.table import SPLITS
from ..files import fingerprint
from . import representation
from .finetuned_probe import ProbeRecipe
from .tables import MODELS


def probes(
    run,
    target: str,
    models: Sequence[str] = MODELS,
    parts: Sequence[str] = tuple(representation.PART_NAMES),
    finetune: ProbeRecipe | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probe the vision encoder's and the Q-Former's features: `aus` on the AU corpus, `emotion` on the emotion corpus.

    Of a corpus with more faces, `Profile.probed` (with `finetune`: `probed_finetuned`) a split are drawn for training and validation; the
    test split is whole.

    Args:
        finetune: train the part, too; without it a linear probe reads the features as they are.

    Returns:
        The table of `representation_table`, and the differences to the base of `representation_differences`.
    """
    splits = [
        run.faces_of(run.au_corpus, split) if target == "aus" else run.emotion_faces(split)
        for split in SPLITS
    ]
    most = (run.profile.probed_finetuned if finetune else run.profile.probed) or sum(map(len, splits))
    splits = [
        some if split == "test" else some.sample(min(most, len(some)), random_state=run.profile.seed)
        for split, some in zip(SPLITS, splits, strict=True)
    ]
    faces = pd.concat(splits, ignore_index=True)
    how = f"-{fingerprint(vars(finetune))}" if finetune else ""

    def probe(name: str, part: str) -> pd.DataFrame:
        model, folder = run.model(name), run.store / "features"
        return representation.probe(
            model.model, model.processor, faces, target, part, folder, finetune=finetune
        )

    scores = {
        (name, part): run.cached(f"probe-{target}-{part}-{most}{how}", name, partial(probe, name, part))
        for name in models
        for part in parts
    }
    settings = {"resamples": run.profile.resamples, "seed": run.profile.seed}
    return tuple(
        measure(faces, scores, target, **settings)
        for measure in (representation.representation_table, representation.representation_differences)
    )
