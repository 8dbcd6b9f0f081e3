"""Hand-worked features of pairs."""

from math import isfinite, log1p

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.indicators.quality_features import TextFeatures, split_words, text_features


def test_split_words_counts_a_chinese_character_as_a_word():
    assert split_words("It's 3 apples, 苹果 or so_on!") == ["it's", "3", "apples", "苹", "果", "or", "so", "on"]


def test_surface_of_a_small_pair_worked_by_hand():
    # asked: name, a, fruit → without function words {name, fruit}; answered: a, ripe, fruit → {ripe, fruit}.
    features = text_features("Name a fruit.", "A ripe fruit.")
    assert features.length == log1p(3)
    assert features.question_length == log1p(3)
    assert features.final_stop == 1
    assert features.function_share == 1 / 3
    assert features.function_pairs == 0
    assert features.in_instruction == 1 / 2
    assert features.of_instruction == 1 / 2
    assert features.same == 1 / 3
    assert features.copied == features.covered == 0
    assert features.word_length == (1 + 4 + 5) / 3
    assert features.other_script == features.repeated_words == features.unclosed == 0


def test_surface_of_an_echo_is_full_overlap():
    features = text_features("Name a ripe fruit.", "Name a ripe fruit.")
    assert (features.same, features.copied, features.covered) == (1, 1, 1)


def test_surface_of_a_quoted_passage_covers_little_of_the_instruction():
    passage = "Ada lived in Paris for ten years before she moved to the coast of Brittany with her sister."
    features = text_features(f"Where did Ada live first?\n\n{passage}", "Ada lived in Paris for ten years")
    assert features.copied == 1
    assert features.covered == 4 / 20


@pytest.mark.parametrize(
    ("response", "name"),
    [
        ("It ends here.", "final_stop"),
        ('He said "no."', "final_stop"),
        ("结束了。", "final_stop"),
        ("print(1)", "final_closer"),
        ("apples, pears,", "final_opener"),
        ("It grows in the", "dangling"),
    ],
)
def test_surface_sees_how_a_response_ends(response, name):
    features = text_features("?", response)
    endings = ("final_stop", "final_closer", "final_opener", "dangling")
    assert {n: getattr(features, n) for n in endings} == {n: float(n == name) for n in endings}


@pytest.mark.parametrize("response", ["7", "Paris", "- one\n- two\n- three", '{"a": 1}', "positive"])
def test_surface_misses_no_stop_where_a_response_has_none(response):
    assert text_features("?", response).stop_missing == 0


def test_surface_misses_the_stop_of_a_cut_text():
    # One stop inside, no line break: 1 of 2 sentences.
    assert text_features("?", "It rained. Then it").stop_missing == 1 / 2


def test_surface_counts_what_was_left_open():
    assert text_features("?", "See (the [note").unclosed == log1p(2)
    assert text_features("?", "```\ncode").unclosed == log1p(1)


def test_surface_counts_repetition():
    features = text_features("?", "go on now. go on now. go on now.")
    assert features.repeated_words == 1 - 3 / 9
    assert features.repeated_4grams == 1 - 3 / 6
    assert features.repeated_sentences == 1 - 1 / 3


def test_surface_sees_another_script_unless_it_was_asked_for():
    assert text_features("Name a fruit.", "苹果 apple").other_script == 2 / 7
    assert text_features("Translate to Chinese: apple", "苹果").other_script == 0
    assert text_features("2 + 2?", "四").other_script == 0


@given(st.text(max_size=200), st.text(max_size=200))
def test_surface_is_finite_and_shares_lie_between_0_and_1(instruction, response):
    features = text_features(instruction, response)
    assert all(isfinite(value) for value in features)
    unbounded = {"length", "question_length", "unclosed", "word_length", "lines"}
    assert all(0 <= getattr(features, name) <= 1 for name in TextFeatures._fields if name not in unbounded)


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("Suggest a gift for a cook.", "asks_list"),
        ("Who wrote the letter?", "asks_name"),
        ("How many legs has a spider?", "asks_number"),
        ("Classify the review as good or bad.", "asks_choice"),
        ("Write a Python loop.", "asks_code"),
    ],
)
def test_surface_sees_what_a_question_asks_for(instruction, name):
    features = text_features(f"{instruction}\n\nWho made a list of how many?", "Something.")
    kinds = ("asks_list", "asks_name", "asks_number", "asks_choice", "asks_code")
    assert {n: getattr(features, n) for n in kinds} == {n: float(n == name) for n in kinds}


def test_surface_sees_the_form_of_a_response():
    features = text_features("Name some rivers.", "- the Rhine\n- the Elbe, 1094 km\nand more")
    # Ten pieces between white space, dashes included.
    assert features.bullets == 2 / 3
    assert features.commas == 1 / 10
    assert features.digits == 1 / 10
    assert features.names == 2 / 10
    assert features.few == 1 / 10
    assert text_features("Add two.", "x = x+2").code == 1 / 3


def test_surface_weighs_the_words_of_the_topic():
    # Long words, numbers and names: {capit, portu} and {lisbo, capit}; terms without "tell": {capit, portu}.
    features = text_features("Tell the capital of Portugal.", "It has Lisbon as capital.")
    assert features.rare_of_instruction == 1 / 2
    assert features.rare_of_response == 1 / 2
    assert features.of_question == 1 / 2
    assert features.in_question == 1 / 2
