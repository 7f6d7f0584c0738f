"""One run on disk: faces, pairs, models, predictions and tables, each made when first asked for and read back afterwards.

What takes seconds to import (torch, transformers, datasets) is imported where it is needed: notebooks that draw faces start at once.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from . import profiles
from .corpora import synthetic
from .corpora.table import labelled_aus
from .errors import SettingsError
from .facs import ACTION_UNITS
from .files import atomic, fingerprint, write_json
from .questions import Q3, ask_q1, ask_q2
from .recipe import VARIANTS

if TYPE_CHECKING:
    import datasets

    from .companion import ExpVQA

MODELS = ("base", *VARIANTS)
BASE = Path(__file__).parent / "data" / "base"


def repository_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: here) with `run_all.sh`, or `start` itself: relative folders hang from it."""
    start = (start or Path.cwd()).resolve()
    return next((p for p in (start, *start.parents) if (p / "run_all.sh").exists()), start)


class Workspace:
    """The folder `run_dir` (default `runs/<profile>`) of one profile, and `figures_dir` (default `figures`) for what it shows."""

    def __init__(
        self, profile: str = "quick", run_dir: str | Path = "", figures_dir: str | Path = "", data_root: str | None = None
    ) -> None:
        self.profile = profiles.get(profile, faces=True)
        self.run_dir = repository_root() / (run_dir or Path("runs") / profile)
        self.figures_dir = repository_root() / (figures_dir or "figures")
        if data_root:
            raise SettingsError(f"data_root={data_root!r}: profile {profile!r} draws its own faces; real data sets cannot be read yet")

    # ------------------------------------------------------------------------------------------------ faces and pairs

    def faces(self) -> pd.DataFrame:
        """The face table of the three SynthFACS corpora."""
        return synthetic.make(self.run_dir / "data", self.profile.corpora)

    def test_faces(self, dataset: str) -> pd.DataFrame:
        """Test rows of one corpus: identities that training never saw."""
        faces = self.faces()
        return faces[(faces["dataset"] == dataset) & (faces["split"] == "test")].reset_index(drop=True)

    def pairs(self) -> datasets.DatasetDict:
        """Question-answer pairs of all corpora, by split."""
        import datasets

        from . import pairs

        datasets.disable_progress_bars()  # seconds of work, and a notebook would keep the bars
        folder = self.run_dir / f"pairs-{fingerprint(self._fingerprint(), str(self.run_dir))}"  # image paths are absolute
        if not folder.exists():
            with atomic(folder) as temporary:
                pairs.build(self.faces(), self.profile.seed).save_to_disk(temporary)
        return datasets.load_from_disk(str(folder))

    # --------------------------------------------------------------------------------------------------------- models

    def model(self, name: str) -> ExpVQA:
        """`base`, `exp_vqa` or `exp_vqa_fz`; a variant is fine-tuned first if it is not there (a killed training goes on)."""
        if name not in MODELS:
            raise SettingsError(f"model {name!r} is unknown; known are {', '.join(MODELS)}")
        import torch

        from .companion import load
        from .training import finetune

        torch.set_num_threads(min(torch.get_num_threads(), 8))
        if name == "base":
            return load(BASE, quiet=True)
        folder = self.model_dir(name)
        if not folder.exists():
            start = self.model(self._start(name))
            finetune(
                start.model,
                start.processor,
                self.pairs(),
                folder,
                variant=name,
                recipe=getattr(self.profile, name),
                features=self.run_dir / "features",
            )
        return load(folder, quiet=True)

    def model_dir(self, name: str) -> Path:
        """Where a fine-tuned variant is kept."""
        return self.run_dir / "models" / f"{name}-{self._model_fingerprint(name)}"

    def training_log(self, name: str) -> pd.DataFrame:
        """Loss by step of a variant."""
        self.model(name)
        return pd.read_csv(self.model_dir(name) / "log.csv")

    # ---------------------------------------------------------------------------------------------------- predictions

    def scores(self, name: str) -> pd.DataFrame:
        """P(yes) of the lab corpus's AUs for its test faces, by one model of the run."""
        return self._kept("q3_scores", name, lambda: self._scores(self.model(name)))

    def _scores(self, model: ExpVQA) -> pd.DataFrame:
        """P(yes), the mean over the three wordings of Q3."""
        from .answering import score_yes_no

        faces = self.test_faces("synth_lab")
        images, aus = faces["image"].tolist(), labelled_aus(faces)
        return score_yes_no(model.model, model.processor, images, aus, wordings=range(len(Q3)), progress=True)

    def answers(self, name: str, kind: str) -> pd.DataFrame:
        """Answers in words: `Q1` for the emotion corpus's test faces, `Q2` for every labelled area of the lab corpus's test faces.

        Columns: `row` (of `test_faces`), `area`, `question`, `answer`.
        """

        def make() -> pd.DataFrame:
            from .answering import embed_images, generate

            faces = self.test_faces("synth_emotion" if kind == "Q1" else "synth_lab")
            areas = [None] if kind == "Q1" else list(dict.fromkeys(ACTION_UNITS[au].area for au in labelled_aus(faces)))
            model = self.model(name)
            embeds = embed_images(model.model, model.processor, faces["image"].tolist(), progress=True)
            parts = []
            for area in areas:
                question = ask_q1() if area is None else ask_q2(area)
                told = generate(model.model, model.processor, [], [question] * len(faces), embeds=embeds, batch=256, progress=True)
                parts.append(pd.DataFrame({"row": faces.index, "area": area, "question": question, "answer": [t[0] for t in told]}))
            return pd.concat(parts, ignore_index=True)

        return self._kept(f"{kind.lower()}_answers", name, make)

    # --------------------------------------------------------------------------------------------------------- tables

    def au_detection(self, model: ExpVQA | None = None, name: str = "exp_vqa") -> pd.DataFrame:
        """Per-AU detection on unseen identities: prior, base, both variants, and Exp-VQA on shuffled images.

        With a `model` of one's own, called `name`: the prior, this model, and this model on shuffled images.
        """
        from . import evaluation

        faces, test = self.faces(), self.test_faces("synth_lab")
        train = faces[(faces["dataset"] == "synth_lab") & (faces["split"] == "train")]
        scores = {known: self.scores(known) for known in MODELS} if model is None else {name: self._scores(model)}
        return evaluation.au_detection(test, train, scores, self.profile.resamples, self.profile.seed, name)

    def captions(self) -> pd.DataFrame:
        """Emotions read out of Q1 answers and AUs read out of Q2 answers, with the same controls."""
        from . import evaluation

        faces = self.faces()
        emotion_train = faces[(faces["dataset"] == "synth_emotion") & (faces["split"] == "train")]
        return evaluation.captions(
            self.test_faces("synth_emotion"),
            self.test_faces("synth_lab"),
            emotion_train,
            {name: self.answers(name, "Q1") for name in MODELS},
            {name: self.answers(name, "Q2") for name in MODELS},
            self.profile.resamples,
            self.profile.seed,
        )

    def attention(self, method: str = "gradient_cross_attention") -> pd.DataFrame:
        """Pointing accuracy an AU on the lab corpus's test faces by a method of `attention.METHODS`, and what chance would give."""
        from . import evaluation

        model, faces = self.model("exp_vqa"), self.test_faces("synth_lab")
        return evaluation.pointing(
            model.model, model.processor, faces, self.profile.explained, method, self.profile.resamples, self.profile.seed
        )

    def save_table(self, table: pd.DataFrame, name: str) -> Path:
        """Write a table to `figures_dir/<name>.csv` and beside it `run.json`, which says what made it."""
        path = self.figures_dir / f"{name}.csv"
        with atomic(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        write_json(self.figures_dir / "run.json", self.identity())
        return path

    def identity(self) -> dict:
        """What made the results: profile, seed, code, versions, hardware and data."""
        import torch
        import transformers

        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
        return {
            "profile": self.profile.name,
            "seed": self.profile.seed,
            "commit": commit or None,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "data": self._fingerprint(),
            "base": _fingerprint_of(BASE),
        }

    def _fingerprint(self) -> str:
        return fingerprint(synthetic.VERSION, vars(self.profile.corpora), self.profile.seed)

    def _model_fingerprint(self, name: str) -> str:
        """Changes with whatever the model is made from: data, base and recipe."""
        if name not in VARIANTS:
            return fingerprint(self._fingerprint(), _fingerprint_of(BASE))
        return fingerprint(self._model_fingerprint(self._start(name)), vars(getattr(self.profile, name)))

    def _start(self, name: str) -> str:
        """The model that a variant's training starts from."""
        return self.profile.exp_vqa_start if name == "exp_vqa" else "base"

    def _kept(self, kind: str, model: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Read a model's predictions of a kind, or make and keep them."""
        path = self.run_dir / "predictions" / f"{kind}-{model}-{self._model_fingerprint(model)}.parquet"
        if not path.exists():
            table = make()
            with atomic(path) as temporary:
                table.to_parquet(temporary, index=False)
        return pd.read_parquet(path)


def _fingerprint_of(folder: Path) -> str:
    weights = folder / "model.safetensors"
    return fingerprint(weights.read_bytes()) if weights.exists() else "none"
