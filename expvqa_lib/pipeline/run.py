"""One run on disk: faces, pairs, models, predictions and tables, each made when first asked for and read back afterwards.

What takes seconds to import (torch, transformers, datasets) is imported where it is needed: notebooks that draw faces start at once.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from .. import synthfacs
from ..data import readers
from ..data.table import labelled_aus
from ..errors import SettingsError
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import atomic, fingerprint, write_json
from ..questions import Q3, ask_q1, ask_q2
from ..training.curriculum import Curriculum, captioner_pairs, curriculum, select, variant_of
from ..training.recipe import VARIANTS, Recipe
from . import profiles

if TYPE_CHECKING:
    import datasets

    from ..expvqa import ExpVQA

MODELS = ("base", *VARIANTS)
AU_CORPORA = ("synth_lab", "BP4D", "DISFA", "GFT", "RAF-AU", "EmotioNet")
EMOTION_CORPORA = ("synth_emotion", "AffectNet", "RAF-DB basic")
"""Where the models are measured: on the first of each that is there; else on a face table of one's own that has the labels."""


def repository_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: here) with `run_all.sh`, or `start` itself: relative folders hang from it."""
    start = (start or Path.cwd()).resolve()
    return next((p for p in (start, *start.parents) if (p / "run_all.sh").exists()), start)


class Run:
    """The folder `run_dir` (default `runs/<profile>`) of one profile, and `figures_dir` (default `figures`) for what it shows.

    A profile that reads data sets takes their folder `data_root`, and `base`, the model folder or hub name to start from (default: the
    profile's own). Raises SettingsError for a profile, folder or combination of them that cannot be.
    """

    def __init__(
        self,
        profile: str = "quick",
        run_dir: str | Path = "",
        figures_dir: str | Path = "",
        data_root: str = "",
        base: str = "",
    ) -> None:
        self.profile = profiles.with_data(profile, data_root)
        self.run_dir = repository_root() / (run_dir or Path("runs") / profile)
        self.figures_dir = repository_root() / (figures_dir or "figures")
        self.data_root, self.base = data_root, base or self.profile.base

    @property
    def is_drawn(self) -> bool:
        """Whether the faces are drawn, so that the pixels that an AU moved are known."""
        return self.profile.corpora is not None

    # ------------------------------------------------------------------------------------------------ faces and pairs

    def faces(self) -> pd.DataFrame:
        """The face table of all corpora: SynthFACS's three, or what is below `data_root`."""
        return self._faces.copy()

    @cached_property
    def _faces(self) -> pd.DataFrame:
        if self.is_drawn:
            return synthfacs.make(self.run_dir / "data", self.profile.corpora)
        return readers.read_available(self.data_root, self.run_dir / "data")

    @cached_property
    def au_corpus(self) -> str:
        """The corpus on which AU detection is measured.

        Raises:
            SettingsError: none with AU labels has a test split.
        """
        labelled = self._faces[[unit.name for unit in ACTION_UNITS.values()]].notna().any(axis=1)
        if found := self._first(AU_CORPORA, labelled):
            return found
        raise SettingsError(
            f"{self.data_root}: none of the data sets has action units and a test split; add one of {AU_CORPORA[1:]}"
        )

    @cached_property
    def emotion_corpus(self) -> str | None:
        """The corpus on which emotions are measured: each face has one of `facs.EMOTIONS`. None where there is none."""
        return self._first(EMOTION_CORPORA, self._faces["emotion"].isin(list(EMOTIONS)))

    @property
    def caption_corpus(self) -> str:
        """The corpus whose Q1 answers are held against sentences: the drawn one with AUs and emotion, or the AU corpus."""
        return "synth_wild" if self.is_drawn else self.au_corpus

    def _first(self, order: tuple[str, ...], labelled: pd.Series) -> str | None:
        there = self._faces.loc[
            labelled & (self._faces["split"] == "test") & self._faces["labelled_by"].isna(), "dataset"
        ].unique()
        return next((name for name in (*order, *sorted(there)) if name in there), None)

    def faces_of(self, dataset: str, split: str = "test") -> pd.DataFrame:
        """Rows of one corpus and split: of the emotion corpus those that have one emotion, for a test none that a program labelled."""
        faces = self._faces[(self._faces["dataset"] == dataset) & (self._faces["split"] == split)]
        if split == "test":
            faces = faces[faces["labelled_by"].isna()]
        if dataset == self.emotion_corpus:
            faces = faces[faces["emotion"].isin(list(EMOTIONS))]
        return faces.reset_index(drop=True)

    def pairs(self) -> datasets.DatasetDict:
        """Question-answer pairs of all corpora, by split."""
        import datasets

        from ..data import pairs

        datasets.disable_progress_bars()  # seconds of work, and a notebook would keep the bars
        made_of = (self._fingerprint(), list(pairs.FEATURES), str(self.run_dir))  # image paths are absolute
        folder = self.run_dir / f"pairs-{fingerprint(*made_of)}"
        if not folder.exists():
            with atomic(folder) as temporary:
                (temporary / "arrow").mkdir(parents=True)
                pairs.save_pairs(pairs.build_pairs(self._faces, self.profile.seed, temporary / "arrow"), temporary)
                shutil.rmtree(temporary / "arrow")
        return datasets.load_from_disk(str(folder))

    # --------------------------------------------------------------------------------------------------------- models

    def model(self, name: str) -> ExpVQA:
        """`base`, a variant or a name of `curriculum`; fine-tuned first if it is not there (a killed training goes on)."""
        from ..expvqa import load

        return load(self.train(name), quiet=self.is_drawn)

    def train(self, name: str) -> str | Path:
        """Fine-tune a model if it is not there yet, and return where it is: a folder, or the base's hub name.

        Raises:
            SettingsError: the model is neither the base nor known to `curriculum`.
        """
        if name == "base":
            return self.base
        import torch

        from ..model.load import load_model
        from ..training.finetune import finetune

        torch.set_num_threads(min(torch.get_num_threads(), 8))
        if not (folder := self.model_dir(name)).exists():
            pairs, recipe = self.training_pairs(name), self.recipe(name)
            model, processor = load_model(
                self.train(self._start(name)),
                device="cpu",
                language_dtype=recipe.precision,
                quiet=self.is_drawn,
            )
            features = self.run_dir / "features"
            finetune(
                model, processor, pairs, folder, variant=variant_of(name), recipe=recipe, features=features
            )
        return folder

    def recipe(self, name: str) -> Recipe:
        """The profile's recipe of a variant, an ablation's is that of `exp_vqa_fz`; without a CUDA GPU in float32, not float16."""
        import torch

        recipe = getattr(self.profile, variant_of(name))
        return (
            replace(recipe, precision="float32")
            if recipe.precision == "float16" and not torch.cuda.is_available()
            else recipe
        )

    def training_pairs(self, name: str) -> datasets.DatasetDict:
        """The pairs that a model of the run is trained on; `cat` and `exp` fill in labels with the AU- and the Emot-captioner's answers."""
        chosen = self.curriculum(name)
        if chosen.captioner is None:
            return select(self.pairs(), chosen)
        from ..training.pseudo_labels import caption, complete_labels

        faces, halves = self.faces(), None
        if chosen.captioner in ("cat", "exp"):
            captioners = {"actions": "au_captioner", "emotion": "emot_captioner"}
            folder, captions = self.run_dir / "captions", []
            for half, name in captioners.items():
                model = self.model(name)
                captions.append(
                    caption(model.model, model.processor, faces, folder, halves=[half], question=ask_q1())
                )
            halves = complete_labels(faces, pd.concat(captions, ignore_index=True))
        return captioner_pairs(faces, chosen.captioner, halves)

    def curriculum(self, name: str) -> Curriculum:
        """The curriculum of a model of the run: everything for Exp-VQA; no Q3 about the profile's unseen AUs for the others."""
        return curriculum(name, () if name == "exp_vqa" else self.profile.unseen)

    def model_dir(self, name: str) -> Path:
        """Where a fine-tuned model is kept."""
        return self.run_dir / "models" / f"{name}-{self._model_fingerprint(name)}"

    def training_log(self, name: str) -> pd.DataFrame:
        """Loss by step of a fine-tuned model."""
        return pd.read_csv(Path(self.train(name)) / "log.csv")

    # ---------------------------------------------------------------------------------------------------- predictions

    def scores(
        self, name: str, corpus: str | None = None, aus: Sequence[int] | None = None, split: str = "test"
    ) -> pd.DataFrame:
        """P(yes) of AUs for a corpus's faces by one model of the run, a row a face of `faces_of`.

        Of the AU corpus and the AUs that are labelled there by default.
        """
        corpus = corpus or self.au_corpus
        aus = list(aus or labelled_aus(self.faces_of(corpus, split)))
        return self.kept(
            f"q3_scores-{corpus}-{split}-{fingerprint(aus)[:4]}",
            name,
            lambda: self._scores(self.model(name), corpus, aus, split),
        )

    def _scores(self, model: ExpVQA, corpus: str, aus: Sequence[int], split: str = "test") -> pd.DataFrame:
        """P(yes), the mean over the three wordings of Q3."""
        from ..model.answer import score_yes_no

        images = self.faces_of(corpus, split)["image"].tolist()
        return score_yes_no(model.model, model.processor, images, aus, wordings=range(len(Q3)), progress=True)

    def answers(self, name: str, kind: str, corpus: str | None = None) -> pd.DataFrame:
        """Answers in words about a corpus's test faces: one to `Q1`, or to `Q1_actions` alone, or one to `Q2` an area.

        By default Q1 is asked of the emotion corpus, Q2 of the AU corpus. Columns: `row` (of `faces_of`), `area`, `question`, `answer`.
        """
        corpus = corpus or (self.emotion_corpus if kind == "Q1" else self.au_corpus)

        def make() -> pd.DataFrame:
            from ..model.answer import embed_images, generate

            faces = self.faces_of(corpus)
            areas = (
                [None]
                if kind != "Q2"
                else list(dict.fromkeys(ACTION_UNITS[au].area for au in labelled_aus(faces)))
            )
            model = self.model(name)
            embeds = embed_images(model.model, model.processor, faces["image"].tolist(), progress=True)
            parts = []
            for area in areas:
                question = ask_q1(emotion=kind == "Q1") if area is None else ask_q2(area)
                told = generate(
                    model.model,
                    model.processor,
                    [],
                    [question] * len(faces),
                    embeds=embeds,
                    batch=256,
                    progress=True,
                )
                parts.append(
                    pd.DataFrame(
                        {
                            "row": faces.index,
                            "area": area,
                            "question": question,
                            "answer": [t[0] for t in told],
                        }
                    )
                )
            return pd.concat(parts, ignore_index=True)

        return self.kept(f"{kind.lower()}_answers-{corpus}", name, make)

    # --------------------------------------------------------------------------------------------------------- tables

    def au_detection(self, model: ExpVQA | None = None, name: str = "exp_vqa") -> pd.DataFrame:
        """Per-AU detection on unseen identities: prior, base, both variants, and Exp-VQA on shuffled images.

        With a `model` of one's own, called `name`: the prior, this model, and this model on shuffled images.
        """
        from ..evaluation import tables as evaluation

        train, test = self.faces_of(self.au_corpus, "train"), self.faces_of(self.au_corpus)
        scores = (
            {known: self.scores(known) for known in MODELS}
            if model is None
            else {name: self._scores(model, self.au_corpus, labelled_aus(test))}
        )
        return evaluation.au_detection(test, train, scores, self.profile.resamples, self.profile.seed, name)

    def captions(self) -> pd.DataFrame:
        """Emotions read out of Q1 answers (where there is an emotion corpus) and AUs read out of Q2 answers, with the same controls."""
        from ..evaluation import tables as evaluation

        settings = {"resamples": self.profile.resamples, "seed": self.profile.seed}
        q2 = {name: self.answers(name, "Q2") for name in MODELS}
        tables = [evaluation.told_aus(self.faces_of(self.au_corpus), q2, **settings)]
        if corpus := self.emotion_corpus:
            q1 = {name: self.answers(name, "Q1") for name in MODELS}
            tables.insert(
                0,
                evaluation.told_emotions(
                    self.faces_of(corpus), self.faces_of(corpus, "train"), q1, **settings
                ),
            )
        return pd.concat(tables, ignore_index=True)

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

        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
        ).stdout.strip()
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
            "base": _fingerprint_of(self.base),
        }

    def _fingerprint(self) -> str:
        if self.is_drawn:
            return fingerprint(synthfacs.VERSION, vars(self.profile.corpora), self.profile.seed)
        return self._read_fingerprint

    @cached_property
    def _read_fingerprint(self) -> str:
        return fingerprint(
            pd.util.hash_pandas_object(self._faces.astype("string"), index=False).to_numpy().tobytes(),
            self.profile.seed,
        )

    def _model_fingerprint(self, name: str) -> str:
        """Changes with whatever the model is made from: data, base, curriculum and recipe."""
        if name == "base":
            return fingerprint(self._fingerprint(), _fingerprint_of(self.base))
        fields = {field: value for field, value in vars(self.curriculum(name)).items() if value is not None}
        return fingerprint(
            self._model_fingerprint(self._start(name)), fields, vars(getattr(self.profile, variant_of(name)))
        )

    def _start(self, name: str) -> str:
        """The model that a training starts from."""
        return self.profile.exp_vqa_start if name == "exp_vqa" else "base"

    def kept(self, kind: str, model: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Read a model's predictions of a kind, or make and keep them."""
        path = self.run_dir / "predictions" / f"{kind}-{model}-{self._model_fingerprint(model)}.parquet"
        if not path.exists():
            table = make()
            with atomic(path) as temporary:
                table.to_parquet(temporary, index=False)
        return pd.read_parquet(path)


def _fingerprint_of(base: str) -> str:
    """Changes with the content of a small model, with the sizes and times of a large one's files, or with the name on the hub."""
    files = sorted(Path(base).glob("*.safetensors"))
    if sum(path.stat().st_size for path in files) < 10**9:
        return fingerprint(*(path.read_bytes() for path in files)) if files else fingerprint(base)
    return fingerprint([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
