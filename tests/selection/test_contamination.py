import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import SelectionError
from im_datasets.selection.contamination import GRAM, SHARE, EvaluationIndex, words

RIVERS = "Name three rivers that flow through the old city of Vienna."


def holds_more_than_half(instruction: str, evaluation: str) -> bool:
    """The definition, one pair at a time: the oracle of the index."""
    found, wanted = words(instruction), words(evaluation)
    if len(wanted) < GRAM:
        return bool(wanted) and found == wanted
    grams = {tuple(wanted[i : i + GRAM]) for i in range(len(wanted) - GRAM + 1)}
    there = {tuple(found[i : i + GRAM]) for i in range(len(found) - GRAM + 1)}
    return len(grams & there) / len(grams) > SHARE


def numbered(*numbers: int) -> str:
    return " ".join(f"w{n}" for n in numbers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ?! \n", []),
        ("Don’t SHOUT", ["dont", "shout"]),
        ("well-known\tfact_sheet", ["well", "known", "fact", "sheet"]),
        ("Straße ＡＢＣ ﬁne", ["strasse", "abc", "fine"]),
        ("caf\u00e9 cafe\u0301", ["café", "café"]),
        ("zero\u200bwidth so\u00adft", ["zerowidth", "soft"]),
        ("写一首诗。Write", ["写", "一", "首", "诗", "write"]),
        ("カタカナー", ["カ", "タ", "カ", "ナ", "ー"]),
        ("안녕 세계", ["안녕", "세계"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("2+3=5", ["2", "3", "5"]),
    ],
)
def test_words_survive_case_punctuation_and_form(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "planted",
    [
        RIVERS,
        RIVERS.upper(),
        "  name THREE rivers — that\nflow, through: the “old” city of Vienna?!",
        "Question: name three rivers that flow through the old city of vienna. Answer briefly.",
        "Ｎａｍｅ three rivers that flow through the old city of Vienna",
    ],
)
def test_index_finds_a_planted_evaluation_text(planted: str) -> None:
    assert EvaluationIndex.build(["Write a poem.", RIVERS]).is_repeated_by(planted)


def test_index_leaves_other_instructions_alone() -> None:
    index = EvaluationIndex.build(["Write a poem.", RIVERS])
    assert not index.is_repeated_by("Name three rivers that flow through the new city of Belgrade.")
    assert not index.is_repeated_by("")


@pytest.mark.parametrize(
    ("held", "is_repeated"),
    # The evaluation text has 11 words, so 4 8-grams. The first n words hold n - 7 of them: 9 words hold
    # 2 of 4 = 0.5, which is not above a half; 10 words hold 3 of 4 = 0.75.
    [(7, False), (8, False), (9, False), (10, True), (11, True)],
)
def test_share_must_be_above_a_half(held: int, is_repeated: bool) -> None:
    index = EvaluationIndex.build([numbered(*range(11))])
    assert index.is_repeated_by("please " + numbered(*range(held)) + " thanks") is is_repeated


def test_share_counts_one_evaluation_text_at_a_time() -> None:
    # A third of each of two texts is no contamination by either: 2 of 6 8-grams each.
    first, second = range(13), range(100, 113)
    index = EvaluationIndex.build([numbered(*first), numbered(*second)])
    assert not index.is_repeated_by(numbered(*first[:9]) + " and " + numbered(*second[:9]))


def test_share_counts_a_repeated_gram_once() -> None:
    # "a a a ... a" has one distinct 8-gram however long it is.
    assert EvaluationIndex.build(["a " * 50]).is_repeated_by("a " * 8)


def test_short_evaluation_text_matches_as_a_whole_only() -> None:
    index = EvaluationIndex.build(["Write a poem."])
    assert index.is_repeated_by("write a POEM")
    assert not index.is_repeated_by("Write a poem about spring.")
    assert not index.is_repeated_by("Please write a poem.")


def test_chinese_is_compared_by_character() -> None:
    index = EvaluationIndex.build(["请写一首关于春天的短诗"])
    assert index.is_repeated_by("请写一首关于春天的短诗。")
    assert index.is_repeated_by("请写一首 关于春天的短诗,谢谢!")
    assert not index.is_repeated_by("请写一首关于秋天的长诗")


def test_phrase_shared_by_all_texts_does_not_contaminate_or_cost() -> None:
    template = numbered(*range(20))
    texts = [f"{template} {numbered(*range(1000 * i, 1000 * i + 30))}" for i in range(1, 60)]
    index = EvaluationIndex.build(texts)
    assert not index.is_repeated_by(f"{template} something else altogether")
    assert index.is_repeated_by(texts[7])
    assert all(gram not in index.rare for gram in [tuple(template.split()[i : i + GRAM]) for i in range(13)])


letters = st.lists(st.sampled_from("abc"), max_size=24).map(" ".join)


@given(st.lists(letters, min_size=1, max_size=6), letters)
def test_index_equals_the_definition(texts: list[str], instruction: str) -> None:
    if not any(map(words, texts)):
        return
    expected = any(holds_more_than_half(instruction, text) for text in texts)
    assert EvaluationIndex.build(texts).is_repeated_by(instruction) is expected


@given(
    st.lists(st.integers(0, 5), min_size=8, max_size=30),
    st.integers(0, 29),
    st.integers(0, 30),
    st.lists(letters, max_size=4),
)
def test_index_equals_the_definition_on_cut_texts(
    numbers: list[int], start: int, length: int, others: list[str]
) -> None:
    text = numbered(*numbers)
    instruction = numbered(*numbers[start : start + length])
    texts = [*others, text]
    expected = any(holds_more_than_half(instruction, other) for other in texts)
    assert EvaluationIndex.build(texts).is_repeated_by(instruction) is expected


@given(st.text(min_size=1), st.integers(0, 2**32))
def test_words_ignore_added_punctuation_and_spaces(text: str, seed: int) -> None:
    rng = random.Random(seed)
    tokens = words(text)
    noisy = "".join(f"{rng.choice(' .,;!?-')} {token}{rng.choice('.,;!? ')}" for token in tokens)
    assert words(noisy) == tokens


def test_build_records_number_and_digest() -> None:
    index = EvaluationIndex.build(iter(["Write a poem.", "写"]))
    assert index.texts == 2
    assert index.sha256 == hashlib.sha256(b'["Write a poem.", "\\u5199"]').hexdigest()


def test_build_lets_blank_texts_match_nothing() -> None:
    assert not EvaluationIndex.build(["Write a poem.", " !? "]).is_repeated_by("?")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (RIVERS, r"is one string; pass a list of evaluation texts"),
        (["a poem", None], r"a NoneType at place 1; every evaluation text must be a string"),
        ([], r"holds 0 evaluation texts and no word"),
        ([" ", "?!"], r"holds 2 evaluation texts and no word"),
    ],
)
def test_build_refuses_what_cannot_be_looked_for(texts: object, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        EvaluationIndex.build(texts)  # type: ignore[arg-type]
