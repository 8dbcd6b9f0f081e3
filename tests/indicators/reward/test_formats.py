"""A conversation and its last answer → the tokens that a reward model reads, in the format it was trained on."""

from typing import Any

import pytest
from tiny_reward import (
    MARKERS,
    TEXTS,
    byte_level,
    chat_tokenizer,
    pair_tokenizer,
)
from transformers import (
    PreTrainedTokenizerFast,
)

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.reward.formats import Pieces, choose_template, cut, fold, open_format


def test_fold_joins_neighbours_of_one_side() -> None:
    turns = (("user", "a"), ("tool", "b"), ("assistant", "c"), ("tool call", "d"), ("system", "e"), ("poet", "f"))
    assert fold(turns) == (("user", "a\n\nb"), ("assistant", "c\n\nd"), ("user", "e\n\nf"))
    assert fold(turns, keep_system=True)[2:] == (("system", "e"), ("user", "f"))


def test_cut_takes_the_prompts_beginning_then_the_responses_end() -> None:
    prompt, response = list(range(100, 120)), list(range(200, 220))
    pieces = Pieces([1], prompt, [2], response, [3, 4])
    assert cut(pieces, 44) == pieces
    assert cut(pieces, 34) == pieces._replace(prompt=prompt[10:])
    assert cut(pieces, 20) == pieces._replace(prompt=prompt[15:], response=response[:11])
    short = pieces._replace(prompt=prompt[:3])
    assert cut(short, 20) == short._replace(response=response[:13])


def test_cut_keeps_256_tokens_of_a_long_prompt() -> None:
    pieces = cut(Pieces([], list(range(5000)), [], list(range(5000)), [7]), 2048)
    assert pieces == Pieces([], list(range(5000 - 256, 5000)), [], list(range(1791)), [7])


def test_cut_without_room_is_refused() -> None:
    with pytest.raises(IndicatorError, match="16 tokens leave no room beside the 17 of the template; raise max_tokens"):
        cut(Pieces([], [1], [], [2], [3] * 17), 16)


def test_pair_keeps_its_special_tokens_and_types() -> None:
    tokenizer = pair_tokenizer()
    question, answer = TEXTS[0], TEXTS[1]
    first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in (question, answer))
    (found,) = open_format("pair", tokenizer, 24).tokenize([(("user", question), ("assistant", answer))])
    assert list(found.ids) == [1, *first[-6:], 2, *second[:15], 2]
    assert (found.start, found.truncated) == (8, True)
    (found,) = open_format("pair", tokenizer, 4096).tokenize([(("user", question), ("assistant", answer))])
    assert list(found.ids) == tokenizer(question, answer).input_ids
    assert (found.start, found.truncated) == (tokenizer(question, answer).token_type_ids.index(1), False)


def test_plain_keeps_the_tokens_an_encoder_pools() -> None:
    tokenizer = pair_tokenizer()
    (found,) = open_format("plain", tokenizer, 20).tokenize([(("user", TEXTS[0]), ("assistant", TEXTS[1]))])
    assert (found.ids[0], found.ids[-1], len(found.ids)) == (1, 2, 20)


@pytest.mark.parametrize(
    ("model_type", "tokenizer", "template"),
    [
        ("gpt_neox_reward_model", chat_tokenizer(), "oasst"),
        ("llama", chat_tokenizer(), "chat"),
        ("deberta-v2", pair_tokenizer(), "pair"),
        ("gpt2", chat_tokenizer(None), "plain"),
        ("gpt_neox", PreTrainedTokenizerFast(tokenizer_object=byte_level(MARKERS)), "oasst"),
    ],
)
def test_choose_template_by_the_models_files(model_type: str, tokenizer: Any, template: str) -> None:
    assert choose_template(model_type, tokenizer) == template
