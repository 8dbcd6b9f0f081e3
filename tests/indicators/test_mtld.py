"""MTLD against hand-worked cases, published values, a plain reading of the definition, and lexicalrichness."""

import json
import math
import os
import string
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.mtld import MTLD, mtld, words

THRESHOLDS = st.floats(0.05, 0.95)
WORD_LISTS = st.lists(st.sampled_from("abcdefghij"), max_size=80)
TEXTS = st.text() | st.text(st.sampled_from("aAbc dD  e19-–—'.,!ßİΣσς\n\u2028\x1c")) | st.text(st.characters())


def reference_mtld(tokens: Sequence[str], threshold: float) -> float:
    """The definition, word by word."""
    return (_one_way(list(tokens), threshold) + _one_way(list(reversed(tokens)), threshold)) / 2


def _one_way(tokens: list[str], threshold: float) -> float:
    factors, stretch = 0.0, []
    for token in tokens:
        stretch.append(token)
        if len(set(stretch)) / len(stretch) <= threshold:
            factors, stretch = factors + 1, []
    if stretch:
        factors += (1 - len(set(stretch)) / len(stretch)) / (1 - threshold)
    return len(tokens) / factors if factors else float(len(tokens))


def score(*texts: str, threshold: float = 0.72) -> list[float]:
    return MTLD(threshold)({"instruction": ["x"] * len(texts), "output": list(texts)})["im_mtld"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Falls to 2/3 at the third word, both ways: one factor each, 3/1.
        ("go go stop", (3 / (1 + 0) + 3 / (1 + 0)) / 2),
        # Every second word closes a factor (1/2): 4 words, 2 factors.
        ("ha ha ha ha", 2.0),
        # 3/4 = 0.75 stays open both ways: 0.25/0.28 of a factor.
        ("one two three one", 4 / (0.25 / 0.28)),
        # Forwards one factor at 4/6, 8/1; backwards it ends at 6/8, 0.25/0.28 of a factor, 8.96.
        ("to be or not to be said he", 8.48),
    ],
)
def test_mtld_equals_the_hand_worked_value(text: str, expected: float) -> None:
    assert mtld(text.split()) == pytest.approx(expected, abs=1e-12)


def test_mtld_closes_a_factor_at_the_threshold_itself() -> None:
    # Forwards 3/4 closes at the fourth word and the fifth adds nothing: 5/1. Left open it would end at 4/5, which
    # is 0.2/0.25 of a factor, 6.25, as it does backwards, where the repeated word is the last one.
    assert mtld(["one", "two", "three", "one", "four"], 0.75) == pytest.approx((5 + 6.25) / 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TEST text with some text numbers 42, hyphen-here, and text punctuations.", 14.000000000000004),
        ("only unique terms in this little string", 7.0),
    ],
)
def test_mtld_equals_the_published_value(text: str, expected: float) -> None:
    assert score(text) == [expected]


def test_mtld_without_words_is_nan() -> None:
    assert math.isnan(mtld([]))
    assert all(math.isnan(value) for value in score("42", "?! - 7", "—", "..."))


@given(st.sets(st.text(string.ascii_lowercase, min_size=1), min_size=1), THRESHOLDS)
def test_mtld_of_distinct_words_is_their_number(distinct: set[str], threshold: float) -> None:
    assert mtld(sorted(distinct), threshold) == len(distinct)


def test_mtld_has_no_upper_bound() -> None:
    text = [str(i) for i in range(1000)]
    assert mtld([*text, text[500]]) > 100_000


@given(WORD_LISTS, THRESHOLDS)
def test_mtld_equals_the_definition(tokens: list[str], threshold: float) -> None:
    if tokens:
        assert mtld(tokens, threshold) == reference_mtld(tokens, threshold)


@given(WORD_LISTS, THRESHOLDS)
def test_mtld_is_the_same_read_backwards(tokens: list[str], threshold: float) -> None:
    assert mtld(tokens, threshold) == mtld(tokens[::-1], threshold) or not tokens


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, math.nan])
def test_mtld_refuses_a_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(IndicatorError, match="out of range; pass a number above 0 and below 1"):
        MTLD(threshold)
    with pytest.raises(IndicatorError, match="out of range; pass a number above 0 and below 1"):
        mtld(["a"], threshold)


@given(TEXTS)
def test_words_equals_lexicalrichness(text: str) -> None:
    from lexicalrichness import LexicalRichness

    assert words(text) == LexicalRichness(text).wordlist


@given(TEXTS, THRESHOLDS)
def test_mtld_equals_lexicalrichness(text: str, threshold: float) -> None:
    from lexicalrichness import LexicalRichness

    if words(text):
        assert mtld(words(text), threshold) == LexicalRichness(text).mtld(threshold)


def test_call_scores_the_response_only() -> None:
    batch = {"instruction": ["go go go", "x"], "output": ["one two", "go go stop"]}
    assert MTLD()(batch) == {"im_mtld": [2.0, 3.0]}


@pytest.mark.shared_data
@pytest.mark.slow
def test_mtld_equals_lexicalrichness_on_alpaca(shared_data: Path) -> None:
    """IM_TEST_ROWS sets how many responses: a number, or ``all``."""
    from lexicalrichness import LexicalRichness

    rows = json.loads((shared_data / "alpaca52k" / "alpaca_data.json").read_text(encoding="utf-8"))
    asked = os.environ.get("IM_TEST_ROWS", "3000")
    step = 1 if asked == "all" else max(1, len(rows) // int(asked))
    texts = [row["output"] for row in rows[::step] if row["output"].strip()]
    wordless = []
    for text, value in zip(texts, MTLD().score([], texts)["im_mtld"], strict=True):
        try:
            assert value == LexicalRichness(text).mtld(0.72), text
        except ZeroDivisionError:
            wordless.append(value)
    assert all(math.isnan(value) for value in wordless)


@pytest.mark.shared_data
def test_mtld_equals_the_published_example(shared_data: Path) -> None:
    for case in json.loads((shared_data / "reference_values" / "mtld_give.json").read_text(encoding="utf-8")):
        assert words(case["text"]) == case["tokens"]
        assert mtld(case["tokens"], case["threshold"]) == case["expected"]
