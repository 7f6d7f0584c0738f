"""One run on disk: faces, pairs, models and predictions, made when first needed, then read back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import pandas as pd
import torch

from .. import synthfacs
from ..data import AU_COLUMNS, build_pairs, labelled_aus, read_available, save_pairs
from ..data.pairs import FEATURES
from ..errors import SettingsError
from ..evaluation import NAMES, mean_scores, predict, questions_about
from ..evaluation.predictions import with_names
from ..expvqa import ExpVQA, load
from ..facs import EMOTIONS
from ..files import atomic, cached, fingerprint, save_table
from ..model import load_model
from ..questions import Q3, ask_q1
from ..training import (
    Curriculum,
    Recipe,
    caption,
    captioner_pairs,
    complete_labels,
    curriculum,
    finetune,
    select,
    variant_of,
)
from .checkout import repository_root, software
from .profiles import AU_CORPORA, COMMITTED, EMOTION_CORPORA, base_fingerprint, with_data


class Run:
    """Faces, models and predictions of a profile, in the folder of all runs `output`.

    Args:
        profile: name of a profile (`profiles.PROFILES`).
        output: folder of all runs, default `runs/` of the checkout. Profiles share `<output>/store`: data,
            pairs, models, features and predictions by their fingerprints.
        figures_dir: folder for tables and pictures; default `figures/` of the checkout for `quick` and
            `full`, else `<output>/<profile>/figures`.
        data_root: folder of the data sets, for a profile that reads them.
        base: model folder or hub name that fine-tuning starts from; default the profile's.
    """

    def __init__(
        self,
        profile: str = "quick",
        output: str | Path = "",
        figures_dir: str | Path = "",
        data_root: str = "",
        base: str = "",
    ) -> None:
        self.profile = with_data(profile, data_root)
        self.is_rendered = self.profile.corpora is not None  # so that the pixels that an AU moved are known
        root = repository_root() or Path.cwd()
        runs = Path(output).resolve() if output else root / "runs"
        figures = root / "figures" if profile in COMMITTED else runs / profile / "figures"
        self.folder, self.store = runs / profile, runs / "store"
        self.figures_dir = Path(figures_dir).resolve() if figures_dir else figures
        self.data_root, self.base = data_root, base or self.profile.base
        drawn = (synthfacs.VERSION, vars(self.profile.corpora)) if self.is_rendered else ()
        self._data_folder = self.store / f"data-{fingerprint(*(drawn or [str(Path(data_root).resolve())]))}"
        self.image_root = self._data_folder if self.is_rendered else Path(data_root)

    def about(self, corpus: str) -> str:
        """The corpus' name, which says where its faces are rendered."""
        return f"{corpus}, rendered faces" if self.is_rendered else corpus

    # --------------------------------------------------------------------------- faces and pairs

    def faces(self) -> pd.DataFrame:
        """The face table of all corpora: SynthFACS's three, or what is below `data_root`."""
        return self._faces.copy()

    @cached_property
    def _faces(self) -> pd.DataFrame:
        if self.is_rendered:
            return synthfacs.make(self._data_folder, self.profile.corpora)
        return read_available(self.data_root, self._data_folder)

    @property
    def au_corpus(self) -> str:
        """The corpus on which AU detection is measured.

        Raises:
            SettingsError: none with AU labels has a test split.
        """
        if self.has_aus:
            return self._au_corpus
        raise SettingsError(
            f"{self.data_root}: no data set has action units and a test split; add one of {AU_CORPORA[1:]}, "
            "or run all notebooks with ./run_all.sh, which leaves out what needs one"
        )

    @property
    def has_aus(self) -> bool:
        """Whether a corpus with AU labels has a test split."""
        return self.is_rendered or self._au_corpus is not None

    @cached_property
    def _au_corpus(self) -> str | None:
        return self._first(AU_CORPORA, self._faces[list(AU_COLUMNS)].notna().any(axis=1))

    @cached_property
    def emotion_corpus(self) -> str | None:
        """The corpus on which emotions are measured; None where no test face has one of `facs.EMOTIONS`."""
        return self._first(EMOTION_CORPORA, self._faces["emotion"].isin(list(EMOTIONS)))

    @property
    def caption_corpus(self) -> str:
        """The corpus of the Q1 captions: the rendered one with AUs and emotion, the AU or emotion corpus."""
        return "synth_wild" if self.is_rendered else self._au_corpus or self.emotion_corpus or self.au_corpus

    def _first(self, order: tuple[str, ...], labelled: pd.Series) -> str | None:
        test = (self._faces["split"] == "test") & self._faces["labelled_by"].isna()
        corpora = self._faces.loc[labelled & test, "dataset"].unique()
        return next((name for name in (*order, *sorted(corpora)) if name in corpora), None)

    def faces_of(self, dataset: str, split: str = "test") -> pd.DataFrame:
        """Rows of one corpus and split, numbered from 0; no test face that a program labelled."""
        faces = self._faces[(self._faces["dataset"] == dataset) & (self._faces["split"] == split)]
        return faces[faces["labelled_by"].isna() | (split != "test")].reset_index(drop=True)

    def emotion_faces(self, split: str = "test") -> pd.DataFrame:
        """Rows of the emotion corpus that have one of `facs.EMOTIONS`, numbered from 0."""
        faces = self.faces_of(self.emotion_corpus, split)
        return faces[faces["emotion"].isin(list(EMOTIONS))].reset_index(drop=True)

    def pairs(self) -> datasets.DatasetDict:
        """Question-answer pairs of all corpora, by split."""
        datasets.disable_progress_bars()  # seconds of work, and a notebook would keep the bars
        faces, parts = self._faces, (self._data_fingerprint, list(FEATURES), str(self._data_folder))
        folder = self.store / f"pairs-{fingerprint(*parts)}"  # image paths are absolute
        if not folder.exists():
            with TemporaryDirectory(dir=self.store) as arrow, atomic(folder) as temporary:
                save_pairs(build_pairs(faces, self.profile.seed, arrow), temporary)
        return datasets.load_from_disk(str(folder))

    # ------------------------------------------------------------------------------------ models

    def ensure(self, *names: str) -> None:
        """Fine-tune the models that are not there yet, and print which."""
        for name in names:
            made = "is there" if self.model_dir(name).exists() else "is not there yet: it is fine-tuned now"
            print(f"{NAMES.get(name, name)}: {made}")
            self.train(name)

    def model(self, name: str) -> ExpVQA:
        """`base`, a variant or a model of `training.curriculum`; fine-tuned first if it is not there."""
        return load(self.train(name), quiet=self.is_rendered)

    def train(self, name: str) -> str | Path:
        """Fine-tune a model if it is not there yet (a killed training goes on).

        Returns:
            Its folder, or the base's hub name.

        Raises:
            SettingsError: the model is neither the base nor known to `curriculum`.
        """
        if name == "base":
            return self.base
        torch.set_num_threads(min(torch.get_num_threads(), 8))
        if not (folder := self.model_dir(name)).exists():
            pairs, recipe = self.training_pairs(name), self.recipe(name)
            start, features = self.train(self._start(name)), self.store / "features"
            model = load_model(start, device="cpu", language_dtype=recipe.precision, quiet=self.is_rendered)
            finetune(*model, pairs, folder, variant=variant_of(name), recipe=recipe, features=features)
        return folder

    def recipe(self, name: str) -> Recipe:
        """The profile's recipe of a model (of an ablation: `exp_vqa_fz`'s); float32 without a CUDA GPU."""
        recipe = getattr(self.profile, variant_of(name))
        if recipe.precision == "float16" and not torch.cuda.is_available():
            return replace(recipe, precision="float32")
        return recipe

    def training_pairs(self, name: str) -> datasets.DatasetDict:
        """The pairs that a model is trained on; captioners fill in labels for `cat` and `exp`."""
        chosen = self.curriculum(name)
        if chosen.captioner is None:
            return select(self.pairs(), chosen)
        faces, halves = self.faces(), None
        if chosen.captioner in ("cat", "exp"):
            captions, settings = [], {"folder": self.store / "captions", "question": ask_q1()}
            for half, captioner in (("actions", "au_captioner"), ("emotion", "emot_captioner")):
                model = self.model(captioner)
                captions.append(caption(model.model, model.processor, faces, halves=[half], **settings))
            halves = complete_labels(faces, pd.concat(captions, ignore_index=True))
        return captioner_pairs(faces, chosen.captioner, halves)

    def curriculum(self, name: str) -> Curriculum:
        """The curriculum of a model: all for Exp-VQA, no Q3 about the profile's unseen AUs for others."""
        return curriculum(name, () if name == "exp_vqa" else self.profile.unseen)

    def model_dir(self, name: str) -> Path:
        """The folder of a fine-tuned model, whether it is there or not."""
        return self.store / "models" / f"{name}-{self._model_fingerprint(name)}"

    def training_log(self, name: str) -> pd.DataFrame:
        """Loss by step of a fine-tuned model."""
        return pd.read_csv(Path(self.train(name)) / "log.csv")

    def _start(self, name: str) -> str:
        """The model that a training starts from."""
        return self.profile.exp_vqa_start if name == "exp_vqa" else "base"

    # ------------------------------------------------------------------------------- predictions

    def scores(
        self, name: str, faces: pd.DataFrame | None = None, aus: Sequence[int] | None = None
    ) -> pd.DataFrame:
        """P(yes) [faces, AUs] by one model, the mean over the wordings of Q3.

        Args:
            faces: rows of `faces()` of one corpus; default: the AU corpus' test split.
            aus: default: those labelled in `faces`.
        """
        faces = self.faces_of(self.au_corpus) if faces is None else faces
        questions = questions_about(aus or labelled_aus(faces), ("Q3",), range(len(Q3)))
        predictions = self.predictions(name, faces, questions)
        return mean_scores(predictions, predictions["image"].unique(), questions["au"].unique())

    def answers(self, name: str, kind: str, faces: pd.DataFrame | None = None) -> pd.DataFrame:
        """One model's answers to `Q1`, `Q1_actions` (which asks for actions alone) or `Q2` of each area.

        Args:
            faces: rows of `faces()` of one corpus; default: `emotion_faces()` for Q1, else the AU corpus'
                test split.

        Returns:
            The prediction table with a column `row`: the face's number, from 0.
        """
        if faces is None:
            faces = self.emotion_faces() if kind == "Q1" else self.faces_of(self.au_corpus)
        questions = questions_about(labelled_aus(faces), (kind.partition("_")[0],))
        if kind == "Q1_actions":
            questions["question"] = ask_q1(emotion=False)
        predictions = self.predictions(name, faces, questions)
        return predictions.assign(row=predictions.index // len(questions))

    def predictions(self, name: str, faces: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
        """The prediction table of one model, which is loaded only if it has not been asked yet."""
        faces = with_names(faces, self.image_root)
        kind = questions["question_type"].iat[0].lower()
        made_of = fingerprint(faces["name"].tolist(), questions.to_numpy().tolist())

        def ask() -> pd.DataFrame:
            model = self.model(name)
            return predict(model.model, model.processor, faces, questions, batch=256, progress=True)

        return self.cached(f"{kind}-{made_of}", name, ask)

    def cached(self, kind: str, model: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table about one model: read back, or made and written to the store."""
        name = f"{kind}-{model}-{self._model_fingerprint(model)}"
        return cached(self.store / "predictions" / f"{name}.parquet", make)

    # ------------------------------------------------------------------------------------ tables

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table to `figures_dir/<name>.csv`, and its row of `figures_dir/runs.csv`."""
        save_table(table, self.figures_dir / f"{name}.csv")
        self.record(name)

    def record(self, name: str) -> None:
        """Write what makes a table, or the pictures of a notebook, to its row of `figures_dir/runs.csv`:
        profile, seed, code, versions, machine, data and base."""
        path = self.figures_dir / "runs.csv"
        made_from = {"data": self._data_fingerprint, "base": base_fingerprint(self.base)}
        made_by = {"profile": self.profile.name, "seed": self.profile.seed, **software(), **made_from}
        rows = pd.DataFrame({"table": [name], **made_by})
        if path.exists():
            others = pd.read_csv(path, dtype=str, keep_default_na=False)
            rows = pd.concat([others[others["table"] != name], rows]).sort_values("table")
        save_table(rows, path)

    @cached_property
    def _data_fingerprint(self) -> str:
        if self.is_rendered:
            return fingerprint(synthfacs.VERSION, vars(self.profile.corpora), self.profile.seed)
        rows = pd.util.hash_pandas_object(self._faces.astype("string"), index=False)
        return fingerprint(rows.to_numpy().tobytes(), self.profile.seed)

    def _model_fingerprint(self, name: str) -> str:
        """Changes with what the model is made from: data, base, curriculum, and the recipe as used."""
        if name == "base":
            return fingerprint(self._data_fingerprint, base_fingerprint(self.base))
        chosen = {field: value for field, value in vars(self.curriculum(name)).items() if value is not None}
        return fingerprint(self._model_fingerprint(self._start(name)), chosen, vars(self.recipe(name)))
