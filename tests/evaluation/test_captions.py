"""Caption metrics agree with reference implementations and hand counts; bad captions are refused."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.meteor_score import meteor_score
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer

from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import metrics

NAMES = {"model": "m", "dataset": "d", "split": "test"}
WORDS = ["the", "person", "raises", "lowers", "inner", "outer", "brow", "lip", "corner", "and", "pulls"]


def corpus(n=60, seed=0):
    """Captions near to one of their 1 to 4 references, and some that have nothing to do with them."""
    rng = random.Random(seed)

    def sentence():
        return rng.choices(WORDS, k=rng.randint(1, 14))

    references = [[" ".join(sentence()) for _ in range(rng.randint(1, 4))] for _ in range(n)]
    captions = []
    for texts in references:
        words = rng.choice(texts).split() if rng.random() < 0.8 else sentence()
        words[rng.randrange(len(words))] = "Else"
        captions.append(" ".join(words))
    return captions, references


def score(metric, captions, references):
    return metrics.caption_scores(captions, references, metrics=[metric])[metric].to_numpy()


def test_corpus_bleu_is_sacrebleus_and_intervals_hold_the_value():
    captions, references = corpus()
    given = {"metrics": ["bleu4", "rouge_l", "cider_d"], "resamples": 300, "target": "Q1"}
    table = metrics.caption_table(captions, references, **NAMES, **given)
    assert tuple(table.columns) == metrics.COLUMNS and set(table["target"]) == {"Q1"}
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    streams = [[texts[k] if k < len(texts) else None for texts in references] for k in range(4)]
    options = {"lowercase": True, "tokenize": "none", "smooth_method": "none"}
    wanted = sacrebleu.corpus_bleu(captions, streams, **options).score
    assert table["value"].iat[0] == pytest.approx(wanted) and 0 < wanted < 100


def test_a_captions_own_bleu_is_nltks_smoothed():
    captions, references = corpus()
    smooth = {"smoothing_function": SmoothingFunction().method2}
    for caption, texts, got in zip(captions, references, score("bleu4", captions, references), strict=True):
        words = caption.lower().split()
        if len(words) >= 4:
            assert got == pytest.approx(100 * sentence_bleu([t.split() for t in texts], words, **smooth))


def test_cider_d_is_the_authors_and_undefined_for_one_image():
    captions, references = corpus()
    lower = {k: [caption.lower()] for k, caption in enumerate(captions)}
    _, each = Cider().compute_score(dict(enumerate(references)), lower)
    assert score("cider_d", captions, references) == pytest.approx(100 * each)
    assert np.isnan(score("cider_d", captions[:1], references[:1])).all()
    # "a" is in both and weighs nothing; all words agree, half of the pairs, no triple
    by_hand = score("cider_d", ["b a c", "d"], [["a c b"], ["a"]])
    assert by_hand == pytest.approx([1000 * (1 + 1 / 2) / 4, 0.0])


def test_rouge_l_is_rouge_scores_best_over_references():
    captions, references = corpus()
    scorer = RougeScorer(["rougeL"])
    pairs = zip(captions, references, strict=True)
    wanted = [max(scorer.score(r, c)["rougeL"].fmeasure for r in texts) for c, texts in pairs]
    assert score("rouge_l", captions, references) == pytest.approx(100 * np.array(wanted))
    hand = score("rouge_l", ["the man raises brow"], [["the person raises the brow", "x"]])
    assert hand == pytest.approx([100 * 2 * 3 / (4 + 5)])  # the, raises, brow


def test_meteor_exact_stem_is_nltks_without_synonyms_and_by_hand():
    no_synonyms = SimpleNamespace(synsets=lambda word: [])
    captions, references = corpus()
    pairs = zip(captions, references, strict=True)
    wanted = [meteor_score([t.split() for t in texts], c.split(), wordnet=no_synonyms) for c, texts in pairs]
    assert score("meteor_exact_stem", captions, references) == pytest.approx(100 * np.array(wanted))
    hand = score("meteor_exact_stem", ["The man smiles."], [["no word here", "the person smiled"]])
    f_mean, chunks, matches = 2 / 3, 2, 2  # "the", and "smiles" by its stem; precision and recall 2 / 3
    assert hand == pytest.approx([100 * f_mean * (1 - 0.5 * (chunks / matches) ** 3)])


def test_tfidf_similarity_by_hand_and_best_over_references():
    """Without pairs of words in common, only "brow" agrees, which two of four references hold."""
    got = score("tfidf_similarity", ["brow", "brow", "eye"], [["brow up", "no"], ["no brow"], ["cheek"]])
    once, twice = 1 + np.log(5 / 2), 1 + np.log(5 / 3)  # scikit-learn's smoothed idf, over 4 references
    first = twice / np.sqrt(twice**2 + 2 * once**2)  # brow, up, "brow up"
    second = twice / np.sqrt(2 * twice**2 + once**2)  # no, brow, "no brow"
    assert got == pytest.approx([100 * first, 100 * second, 0])
    assert score("tfidf_similarity", ["Lowers the brow!"], [["x", "lowers the brow"]]) == pytest.approx([100])


def test_degenerate_captions_are_counted():
    captions = ["", " \n", "... !", "smile smile smile", "a b c. a b c.", "The brow lowers.", '"yes."', "lip"]
    table = metrics.caption_table(captions, [["x"]] * 8, **NAMES, resamples=0).set_index("metric")["value"]
    counts = {"empty": 2, "no_letter": 1, "one_word": 1, "unfinished": 4}
    assert {name: 8 * table[name] / 100 for name in counts} == counts
    got = score("repetition", captions, [["x"]] * 8)
    assert got[4] == pytest.approx(25) and np.delete(got, [3, 4]).max() == 0  # abc bca cab abc


def test_empty_captions_score_nothing_and_empty_references_are_left_out():
    references = [["the brow", ""], ["the brow lowers"]]
    names = ["meteor_exact_stem", "rouge_l", "bleu4", "cider_d", "tfidf_similarity"]
    got = metrics.caption_scores(["", "the brow lowers"], references, metrics=names)
    assert (got.iloc[0] == 0).all() and (got.loc[1, ["rouge_l", "bleu4"]] == 100).all()


BAD = {
    "caption 1: found None": (["a", None], [["a"], ["b"]]),
    "caption 1: found nan": (["a", float("nan")], [["a"], ["b"]]),
    "caption 0.*'a person'": (["a"], ["a person"]),
    "caption 1": (["a", "b"], [["a"], [" ", ""]]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_captions_are_named(message):
    with pytest.raises(TableError, match=message):
        metrics.caption_table(*BAD[message], **NAMES)
