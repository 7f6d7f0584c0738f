"""Caption metrics agree with reference implementations and hand counts; bad captions are refused."""

import random
import socket

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.meteor_score import meteor_score
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sklearn import metrics as sk
from transformers import BertConfig, BertModel, BertTokenizerFast

from expvqa_lib.errors import ModelError, SettingsError, TableError
from expvqa_lib.evaluation import metrics
from expvqa_lib.evaluation.metrics import captions as module
from expvqa_lib.evaluation.metrics import similarity
from expvqa_lib.evaluation.metrics.captions import meteor_exact_stem

NAMES = {"model": "m", "dataset": "d", "split": "test"}
WORDS = [
    "the",
    "person",
    "raises",
    "lowers",
    "inner",
    "outer",
    "brow",
    "lip",
    "corner",
    "and",
    "pulls",
    "chin",
]


def corpus(n=60, seed=0):
    """Captions near to one of their 1 to 4 references, and some that have nothing to do with them."""
    rng = random.Random(seed)
    references = [
        [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(rng.randint(1, 4))]
        for _ in range(n)
    ]
    captions = []
    for those in references:
        words = rng.choice(those).split() if rng.random() < 0.8 else rng.choices(WORDS, k=rng.randint(1, 14))
        words[rng.randrange(len(words))] = "Else"
        captions.append(" ".join(words))
    return captions, references


def values(table):
    return table.set_index("metric")["value"]


def test_corpus_bleu_is_sacrebleus_and_the_coco_codes():
    captions, references = corpus()
    got = values(metrics.caption_table(captions, references, **NAMES, metrics=["bleu4"], resamples=0))[
        "bleu4"
    ]
    streams = [[those[k] if k < len(those) else None for those in references] for k in range(4)]
    options = {"lowercase": True, "tokenize": "none", "smooth_method": "none"}
    assert got == pytest.approx(sacrebleu.corpus_bleu(captions, streams, **options).score) and 0 < got < 100
    coco = Bleu(4).compute_score(
        dict(enumerate(references)), {k: [c.lower()] for k, c in enumerate(captions)}, verbose=0
    )[0][3]
    assert got == pytest.approx(100 * coco)


def test_a_captions_own_bleu_is_nltks_smoothed():
    captions, references = corpus()
    got = metrics.caption_scores(captions, references, metrics=["bleu4"])["bleu4"]
    for caption, those, value in zip(captions, references, got, strict=True):
        words = caption.lower().split()
        if len(words) >= 4:
            smooth = SmoothingFunction().method2
            assert value == pytest.approx(
                100 * sentence_bleu([r.split() for r in those], words, smoothing_function=smooth)
            )


def test_cider_d_is_the_authors():
    captions, references = corpus()
    got = metrics.caption_scores(captions, references, metrics=["cider_d"])["cider_d"]
    mean, each = Cider().compute_score(
        dict(enumerate(references)), {k: [c.lower()] for k, c in enumerate(captions)}
    )
    assert got.to_numpy() == pytest.approx(100 * each) and got.mean() == pytest.approx(100 * mean)
    assert metrics.caption_scores(captions[:1], references[:1], metrics=["cider_d"])["cider_d"].isna().all()


def test_cider_d_by_hand():
    """Two images; "a" is in both and weighs nothing. All words agree, half of the pairs, no triple."""
    got = similarity.cider_d([["b", "a", "c"], ["d"]], [[["a", "c", "b"]], [["a"]]])
    assert got == pytest.approx([1000 * (1 + 1 / 2) / 4, 0.0])


def test_rouge_l_is_rouge_scores_best_over_references():
    captions, references = corpus()
    got = metrics.caption_scores(captions, references, metrics=["rouge_l"])["rouge_l"]
    scorer = RougeScorer(["rougeL"])
    wanted = [
        max(scorer.score(r, c)["rougeL"].fmeasure for r in those)
        for c, those in zip(captions, references, strict=True)
    ]
    assert got.to_numpy() == pytest.approx(100 * np.array(wanted))
    hand = metrics.caption_scores(
        ["the man raises brow"], [["the person raises the brow", "x"]], metrics=["rouge_l"]
    )
    assert hand["rouge_l"].item() == pytest.approx(100 * 2 * 3 / (4 + 5))  # the, raises, brow


def test_meteor_exact_stem_is_nltks_where_no_synonym_is_needed_and_by_hand():
    class Nothing:
        synsets = staticmethod(lambda word: [])

    captions, references = corpus()
    got = metrics.caption_scores(captions, references, metrics=["meteor_exact_stem"])["meteor_exact_stem"]
    for caption, those, value in zip(captions, references, got, strict=True):
        assert value == pytest.approx(
            100 * meteor_score([r.split() for r in those], caption.split(), wordnet=Nothing())
        )
    hand = metrics.caption_scores(
        ["The man smiles."], [["no word here", "the person smiled"]], metrics=["meteor_exact_stem"]
    )
    f_mean, chunks, matches = 2 / 3, 2, 2  # "the", and "smiles" by its stem; precision and recall 2 / 3
    assert hand["meteor_exact_stem"].item() == pytest.approx(
        100 * f_mean * (1 - 0.5 * (chunks / matches) ** 3)
    )


def test_tfidf_similarity_by_hand_and_best_over_references():
    """Without pairs of words in common, only "brow" agrees, which two of four references hold."""
    got = metrics.caption_scores(
        ["brow", "brow", "eye"], [["brow up", "no"], ["no brow"], ["cheek"]], metrics=["tfidf_similarity"]
    )
    once, twice = 1 + np.log(5 / 2), 1 + np.log(5 / 3)  # scikit-learn's smoothed idf, over 4 references
    first = twice / np.sqrt(twice**2 + 2 * once**2)  # brow, up, "brow up"
    second = twice / np.sqrt(2 * twice**2 + once**2)  # no, brow, "no brow"
    assert got["tfidf_similarity"].to_numpy() == pytest.approx([100 * first, 100 * second, 0])
    same = metrics.caption_scores(
        ["Lowers the brow!"], [["x", "lowers the brow"]], metrics=["tfidf_similarity"]
    )
    assert same["tfidf_similarity"].item() == pytest.approx(100)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_embedding_similarity_is_the_cosine_of_mean_states(encoder):
    captions, references = (
        ["the person raises brow", "chin"],
        [["brow raises", "the person raises brow"], ["the outer lip corner pulls"]],
    )
    got = metrics.caption_scores(captions, references, encoder=encoder)["embedding_similarity"]
    tokenizer, model = BertTokenizerFast.from_pretrained(encoder), BertModel.from_pretrained(encoder).eval()
    a, b = (
        model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0].mean(0).detach()
        for t in (captions[1], references[1][0])
    )
    assert got[0] == pytest.approx(100, abs=1e-3) and got[1] == pytest.approx(
        100 * float(a @ b / (a.norm() * b.norm())), abs=1e-3
    )
    assert got[1] < 99
    assert metrics.caption_scores(["", "..."], [["chin"]] * 2, encoder=encoder)[
        "embedding_similarity"
    ].tolist() == [0, 0]


def test_a_missing_encoder_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"nothing: no sentence encoder could be loaded .* expected a folder"
    ):
        metrics.caption_scores(["a"], [["a"]], encoder=tmp_path / "nothing")


def test_degenerate_captions_are_counted():
    captions = [
        "",
        " \n",
        "... !",
        "smile smile smile",
        "a b c. a b c.",
        "The brow lowers.",
        'He said "yes."',
        "pulls lip",
    ]
    flaws = ["empty", "no_letter", "one_word", "unfinished", "repetition"]
    got = metrics.caption_scores(captions, [["x"]] * 8, metrics=flaws)
    counts = {"empty": 2, "no_letter": 1, "one_word": 1, "unfinished": 4, "repetition": 0}
    assert got.eq(100).sum().to_dict() == counts
    assert got["repetition"][4] == pytest.approx(25)  # abc bca cab abc
    table = metrics.caption_table(captions, [["x"]] * 8, **NAMES, resamples=0)
    assert values(table)["empty"] == 25 and (table["support"] == 8).all()


def test_empty_captions_score_nothing_and_empty_references_are_left_out():
    names = ["meteor_exact_stem", "rouge_l", "bleu4", "cider_d", "tfidf_similarity"]
    references = [["the brow", ""], ["the brow lowers"]]
    got = metrics.caption_scores(["", "the brow lowers"], references, metrics=names)
    assert (got.iloc[0] == 0).all() and (got.loc[1, ["rouge_l", "bleu4"]] == 100).all()


def test_intervals_follow_subjects_and_hold_the_value():
    captions, references = corpus()
    options = {"metrics": ["rouge_l", "bleu4", "cider_d"], "resamples": 300}
    once = metrics.caption_table(captions, references, **NAMES, **options, target="Q1")
    assert tuple(once.columns) == metrics.COLUMNS and set(once["target"]) == {"Q1"}
    assert (once.low < once.value).all() and (once.value < once.high).all()
    frames = metrics.caption_table(
        captions * 9, references * 9, groups=list(range(60)) * 9, **NAMES, **options
    )
    rows = metrics.caption_table(captions * 9, references * 9, **NAMES, **options)
    assert ((frames.high - frames.low) / (rows.high - rows.low)).median() == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize(
    ("captions", "references", "row"),
    [
        (["a", None], [["a"], ["b"]], "caption 1: found None"),
        (["a", float("nan")], [["a"], ["b"]], "caption 1: found nan"),
        (["a"], ["a person"], "caption 0.*'a person'"),
        (["a", "b"], [["a"], [" ", ""]], "caption 1"),
    ],
)
def test_bad_captions_are_named(captions, references, row):
    with pytest.raises(TableError, match=row):
        metrics.caption_table(captions, references, **NAMES)


def test_aus_told_by_captions_have_scikit_learns_precision_and_recall():
    columns = ["AU1", "AU4", "AU12"]
    captions = [
        "The person raises inner eyebrow and lowers brow, which suggests fear.",
        "The person pulls lip corner.",
        "The person does not lower brow.",
        "nothing of it",
    ]
    told = metrics.caption_aus(captions, columns)
    assert told.to_numpy().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    labels = pd.DataFrame([[1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]], columns=columns)
    options = {"metrics": ("precision", "recall"), "averages": ("macro", "micro"), "resamples": 0}
    got = metrics.au_table(labels, told, **NAMES, **options).set_index(["target", "metric"])["value"]
    wanted = {"zero_division": 0, "average": "micro"}
    assert got["micro", "precision"] == pytest.approx(100 * sk.precision_score(labels, told, **wanted))
    assert got["micro", "recall"] == pytest.approx(100 * sk.recall_score(labels, told, **wanted))


def test_the_evaluate_metric_loads_offline_and_adds_batches(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    captions, references = corpus()
    metric = metrics.load("captions")
    for k in range(0, 60, 20):
        metric.add_batch(predictions=captions[k : k + 20], references=references[k : k + 20])
    wanted = values(metrics.caption_table(captions, references, **NAMES, resamples=0))
    assert metric.compute() == pytest.approx(wanted.to_dict()) and set(wanted.index) == set(module.METRICS)
    with pytest.raises(SettingsError, match="metric 'bleu' is unknown; known are meteor_exact_stem"):
        metrics.load("captions", metrics=["bleu"]).compute(predictions=["a"], references=[["a"]])


def test_captions_that_stand_several_times_score_as_if_each_were_compared_by_itself():
    texts = [
        "The person pulls lip corner.",
        "The person raises cheek and tightens lids.",
        "The person does not lower brow.",
        "A dog.",
    ]
    rng = np.random.default_rng(0)
    said = [texts[k] for k in rng.integers(0, 4, 60)]
    references = [[texts[k], texts[j]] for k, j in rng.integers(0, 3, (60, 2))]
    scores = metrics.caption_scores(said, references)
    words, other_words = (
        [similarity.tokens(text) for text in said],
        [[similarity.tokens(text) for text in those] for those in references],
    )
    np.testing.assert_allclose(scores["cider_d"], similarity.cider_d(words, other_words))
    np.testing.assert_allclose(scores["meteor_exact_stem"], meteor_exact_stem(words, other_words))
    assert scores["cider_d"].nunique() > 4
