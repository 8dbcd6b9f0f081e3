"""Reward: each format against a plain loop over rows, the cutting rules by hand, refusals by their words."""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_reward import (
    MARKERS,
    TEXTS,
    byte_level,
    chat_tokenizer,
    pair_tokenizer,
    save_deberta,
    save_decoder,
    save_pythia,
    save_pythia_tokenizer,
)
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.reward.formats import Pieces, cut, open_format
from im_datasets.indicators.reward.indicator import UNBOUNDED_TOKENS, Reward
from im_datasets.models import value_store as store
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.meter import metering
from im_datasets.models.oasst_reward import register

INSTRUCTIONS = [text.split("?")[0] for text in TEXTS] * 4
RESPONSES = [text[i:] or text for i in range(4) for text in TEXTS]
SIZES: dict[str, Any] = {"vocab_size": 360, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
HISTORY = (("user", "Name a fruit."), ("assistant", "An apple."), ("user", "Another."))
SYSTEM = (("system", "Be brief."), *HISTORY)


def llama(**settings: Any) -> LlamaForSequenceClassification:
    return LlamaForSequenceClassification(LlamaConfig(**SIZES, intermediate_size=64, num_labels=1, **settings))


def qwen(**settings: Any) -> Qwen2ForSequenceClassification:
    config = Qwen2Config(**SIZES, intermediate_size=64, num_key_value_heads=2, num_labels=1, **settings)
    return Qwen2ForSequenceClassification(config)


def gpt2(**settings: Any) -> GPT2ForSequenceClassification:
    config = GPT2Config(
        vocab_size=360, n_embd=32, n_layer=2, n_head=4, num_labels=1, **{"n_positions": 256, **settings}
    )
    return GPT2ForSequenceClassification(config)


def encoder(config: type, model: type, **settings: Any) -> torch.nn.Module:
    return model(config(**{**SIZES, "intermediate_size": 64, "num_labels": 1, **settings}))


@pytest.fixture(scope="session")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pythia(tmp_path_factory.mktemp("rewards") / "pythia")


@pytest.fixture(scope="session")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_deberta(tmp_path_factory.mktemp("rewards") / "deberta")


def naive(folder: Path, encode: Callable[[Any, str, str], dict[str, Any]]) -> list[float]:
    """The published way: one row at a time through the model's own forward, nothing padded."""
    register()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [
            model(**{name: torch.tensor([ids]) for name, ids in encode(tokenizer, x, y).items()}).logits.item()
            for x, y in zip(INSTRUCTIONS, RESPONSES, strict=True)
        ]


def scored(folder: Path, instructions: Sequence[str] = INSTRUCTIONS, **settings: Any) -> list[float]:
    columns = {"instruction": list(instructions), "output": RESPONSES[: len(instructions)]}
    return Reward(model=str(folder), device="cpu", **settings)(columns)["im_reward"]


def tokens_of(folder: Path, context: Any, response: str, template: str | None = None, limit: int = 4096) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (found,) = open_format(template or "oasst", tokenizer, limit).tokenize([(*context, ("assistant", response))])
    return tokenizer.convert_ids_to_tokens(list(found.ids))


def text_of(tokenizer: Any, context: Any, response: str, template: str, limit: int = 4096) -> str:
    (found,) = open_format(template, tokenizer, limit).tokenize([(*context, ("assistant", response))])
    return tokenizer.decode(list(found.ids))


def oasst(tokenizer: Any, x: str, y: str) -> dict[str, Any]:
    return dict(tokenizer(f"<|prompter|>{x}<|endoftext|><|assistant|>{y}<|endoftext|>"))


def chat(tokenizer: Any, x: str, y: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": x}, {"role": "assistant", "content": y}]
    return dict(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True))


def pair(tokenizer: Any, x: str, y: str) -> dict[str, Any]:
    return dict(tokenizer(x, y))


def plain(tokenizer: Any, x: str, y: str) -> dict[str, Any]:
    return dict(tokenizer(f"{x}\n\n{y}"))


MODELS: dict[str, tuple[Callable[[Path], Path], Callable[..., dict[str, Any]], str]] = {
    "pythia": (save_pythia, oasst, "oasst"),
    "pythia-pickled": (lambda folder: save_pythia(folder, pickled=True), oasst, "oasst"),
    "deberta": (save_deberta, pair, "pair"),
    "deberta-v3": (lambda folder: save_deberta(folder, type_vocab_size=0), pair, "pair"),
    "bert": (
        lambda folder: save_decoder(folder, encoder(BertConfig, BertForSequenceClassification), pair_tokenizer()),
        pair,
        "pair",
    ),
    "llama": (lambda folder: save_decoder(folder, llama(pad_token_id=0)), chat, "chat"),
    "llama-no-padding-token": (lambda folder: save_decoder(folder, llama()), chat, "chat"),
    "qwen2": (lambda folder: save_decoder(folder, qwen(pad_token_id=2)), chat, "chat"),
    # Rows end in a line break, so this padding token is the last real one of every row.
    "qwen2-padding-token-at-the-end": (lambda folder: save_decoder(folder, qwen(pad_token_id=203)), chat, "chat"),
    "gpt2-no-padding-token": (lambda folder: save_decoder(folder, gpt2(), chat_tokenizer(None)), plain, "plain"),
    "gpt2": (lambda folder: save_decoder(folder, gpt2(pad_token_id=2), chat_tokenizer(None)), plain, "plain"),
}


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_the_models_own_forward_a_row_at_a_time(name: str, tmp_path: Path) -> None:
    save, encode, template = MODELS[name]
    folder = save(tmp_path / "model")
    expected = naive(folder, encode)
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(scored(folder), expected, rtol=0, atol=1e-5)
    assert scored(folder, template=template) == scored(folder)
    assert Reward(model=str(folder), device="cpu").describe()["template"] == template


def test_padding_token_that_ends_every_row_is_the_one_the_test_above_means() -> None:
    tokenizer = chat_tokenizer()
    assert chat(tokenizer, "a", "b")["input_ids"][-1] == 203


@pytest.mark.parametrize("name", ["pythia", "deberta", "llama-no-padding-token", "gpt2"])
def test_scores_are_the_same_in_any_batch(name: str, tmp_path: Path) -> None:
    folder = MODELS[name][0](tmp_path / "model")
    whole = scored(folder)
    reward = Reward(model=str(folder), device="cpu")
    for size in (1, 7):
        parts = [
            reward({"instruction": INSTRUCTIONS[i : i + size], "output": RESPONSES[i : i + size]})["im_reward"]
            for i in range(0, len(RESPONSES), size)
        ]
        assert list(chain(*parts)) == whole


def test_custom_format_is_written_out(pythia: Path) -> None:
    template = "{{Q}} {instruction} | A: {response} <|endoftext|>"
    expected = naive(pythia, lambda tokenizer, x, y: dict(tokenizer(f"{{Q}} {x} | A: {y} <|endoftext|>")))
    np.testing.assert_allclose(scored(pythia, template=template), expected, rtol=0, atol=1e-5)


def test_conversation_is_scored_with_all_its_turns(pythia: Path) -> None:
    pairs = Pairs([HISTORY, HISTORY[2:]], ["A pear."] * 2, ["", ""])
    whole, last = Reward(model=str(pythia), device="cpu").score_turns(pairs)["im_reward"]
    assert not math.isclose(whole, last, rel_tol=1e-3)


# How turns are written.


def test_oasst_turns_alternate(pythia: Path) -> None:
    text = text_of(AutoTokenizer.from_pretrained(pythia), SYSTEM, "A pear.", "oasst")
    assert text == (
        "<|system|>Be brief.<|endoftext|><|prompter|>Name a fruit.<|endoftext|><|assistant|>An apple.<|endoftext|>"
        "<|prompter|>Another.<|endoftext|><|assistant|>A pear.<|endoftext|>"
    )


def test_oasst_system_turn_joins_the_prompter_where_there_is_no_marker(tmp_path: Path) -> None:
    save_pythia_tokenizer(tmp_path, MARKERS[:-1])
    text = text_of(AutoTokenizer.from_pretrained(tmp_path), SYSTEM[:2], "A pear.", "oasst")
    assert text == "<|prompter|>Be brief.\n\nName a fruit.<|endoftext|><|assistant|>A pear.<|endoftext|>"


def test_chat_beginning_token_is_not_doubled() -> None:
    tokenizer = chat_tokenizer()
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    assert text_of(tokenizer, HISTORY[:1], "A pear.", "chat") == (
        "<s><|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\nA pear.<|im_end|>\n"
    )


def test_custom_beginning_token_is_not_doubled() -> None:
    assert (
        text_of(chat_tokenizer(), HISTORY[:1], "A pear.", "<s>{instruction} {response}") == "<s>Name a fruit. A pear."
    )


def test_chat_without_system_role_joins_it_to_the_user() -> None:
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('must alternate') }}{% endif %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    )
    tokenizer = chat_tokenizer(strict)
    assert text_of(tokenizer, SYSTEM, "A pear.", "chat") == (
        "<user>Be brief.\n\nName a fruit.<assistant>An apple.<user>Another.<assistant>A pear."
    )
    (refused,) = open_format("chat", tokenizer, 99).tokenize([(*HISTORY[:2], ("assistant", "A pear."))])
    assert refused.group == 1


def test_chat_template_that_drops_the_system_turn_gets_it_with_the_users() -> None:
    silent = (
        "{% for message in messages %}{% if message['role'] != 'system' %}"
        "<{{ message['role'] }}>{{ message['content'] }}{% endif %}{% endfor %}"
    )
    assert text_of(chat_tokenizer(silent), SYSTEM[:2], "A pear.", "chat") == (
        "<user>Be brief.\n\nName a fruit.<assistant>A pear."
    )


def test_row_that_the_chat_template_refuses_is_nan(tmp_path: Path) -> None:
    odd = "{% for m in messages %}{% if 'basil' in m['content'] %}{{ raise_exception('no herbs') }}{% endif %}"
    folder = save_decoder(tmp_path / "model", llama(), chat_tokenizer(odd + "{{ m['content'] }}{% endfor %}"))
    found = scored(folder)
    assert [math.isnan(value) for value in found] == [
        "basil" in x + y for x, y in zip(INSTRUCTIONS, RESPONSES, strict=True)
    ]
    assert any(map(math.isnan, found))


def test_chat_template_that_writes_the_date_gives_one_value_on_any_day() -> None:
    dated = "{{ strftime_now('%d %b %Y') }}: {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert text_of(chat_tokenizer(dated), HISTORY[:1], "A pear.", "chat") == "26 Jul 2024: Name a fruit.A pear."


# What is cut.


@pytest.mark.parametrize("limit", [16, 17, 31, 60])
def test_oasst_end_token_is_never_cut(pythia: Path, limit: int) -> None:
    whole = tokens_of(pythia, HISTORY, " ".join(TEXTS))
    found = tokens_of(pythia, HISTORY, " ".join(TEXTS), limit=limit)
    assert len(found) == limit
    assert found[-1] == "<|endoftext|>"
    kept = found.index("<|assistant|>")
    assert kept == limit // 4 - 1
    start = whole.index("<|assistant|>", len(whole) - 1 - len(tokens_of(pythia, (), " ".join(TEXTS))))
    assert found[: kept + 1] == whole[start - kept : start + 1]
    assert found[kept + 1 : -1] == whole[start + 1 : start + limit - kept - 1]


def test_chat_end_of_turn_and_beginning_token_are_never_cut() -> None:
    tokenizer = chat_tokenizer()
    found = text_of(tokenizer, (("user", " ".join(TEXTS)),), "end <|im_end|> A pear.", "chat", limit=40)
    assert found.startswith("<s>")
    assert found.endswith("<|im_start|>assistant\nend <|im_end|> A pear.<|im_end|>\n")
    found = text_of(tokenizer, HISTORY, "one. " + " ".join(TEXTS), "chat", limit=40)
    assert found.startswith("<s>")
    assert "<|im_start|>assistant\none. Why does" in found
    assert found.endswith("<|im_end|>\n")
    assert len(tokenizer(found, add_special_tokens=False).input_ids) == 40


def test_cut_rows_are_counted_and_equal_their_cut_text(pythia: Path) -> None:
    prompt, response = " ".join(TEXTS), "Yes."
    reward = Reward(model=str(pythia), device="cpu", max_tokens=32)
    with metering() as meter:
        long, short = reward.score([prompt, "Why?"], [response, response])["im_reward"]
    assert meter.truncated == 1
    tokenizer = AutoTokenizer.from_pretrained(pythia)
    register()
    model = AutoModelForSequenceClassification.from_pretrained(pythia, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = oasst(tokenizer, prompt, response)["input_ids"][-32:]
        assert math.isclose(long, model(torch.tensor([ids])).logits.item(), abs_tol=1e-5)
        ids = oasst(tokenizer, "Why?", response)["input_ids"]
        assert math.isclose(short, model(torch.tensor([ids])).logits.item(), abs_tol=1e-5)


def test_longest_row_of_a_model_with_few_positions_runs(tmp_path: Path) -> None:
    """RoBERTa counts positions from two on: of 53 there are 51 for tokens, which is no multiple of anything."""
    settings = {"max_position_embeddings": 53, "pad_token_id": 1, "type_vocab_size": 1}
    model = encoder(RobertaConfig, RobertaForSequenceClassification, **settings)
    tokenizer = byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>")
    folder = save_decoder(tmp_path / "model", model, made)
    assert Checkpoint("sequence-classification", str(folder), device="cpu").load().max_tokens == 51
    with metering() as meter:
        found = scored(folder)
    assert meter.truncated > 0
    assert np.isfinite(found).all()

    def cut_pair(tokenizer: Any, x: str, y: str) -> dict[str, Any]:
        first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in (x, y))
        pieces = cut(Pieces([0], first, [2, 2], second, [2]), 51)
        return {"input_ids": list(chain(*pieces))}

    np.testing.assert_allclose(found, naive(folder, cut_pair), rtol=0, atol=1e-5)


def test_model_without_last_position_reads_a_bounded_text(deberta: Path, tmp_path: Path) -> None:
    load = Checkpoint("sequence-classification", str(deberta), device="cpu").load
    assert load().max_tokens is None
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 60
    with metering() as meter:
        assert np.isfinite(Reward(model=str(deberta), device="cpu").score(["Why?"], [long])["im_reward"]).all()
    assert (meter.truncated, meter.tokens) == (1, UNBOUNDED_TOKENS)
    absolute = save_deberta(tmp_path / "absolute", position_biased_input=True)
    assert Checkpoint("sequence-classification", str(absolute), device="cpu").load().max_tokens == 64


# Choice of format.


def test_settings_hold_the_template_and_no_path(pythia: Path) -> None:
    settings = Reward(model=str(pythia), template="plain").settings()
    assert (settings["template"], settings["model"]) == ("plain", "pythia")


def test_describe_loads_no_weights(pythia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "load", None)
    described = Reward(model=str(pythia), device="cpu").describe()
    assert (described["template"], described["dtype"]) == ("oasst", "float32")


# Failure.


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{instruction}", r"has the fields \['instruction'\]; pass one of oasst, chat, pair, plain, or a text with"),
        ("{response} {instruction}", r"has the fields \['response', 'instruction'\]"),
        ("{instruction} {response} {x}", r"has the fields \['instruction', 'response', 'x'\]"),
        ("{instruction!r} {response}", "each once and bare"),
        ("{instruction} {response", "cannot read the template"),
        ("alpaca", r"has the fields \[\]"),
    ],
)
def test_template_that_cannot_be_read_is_refused(template: str, message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        Reward(template=template)


@pytest.mark.parametrize(
    ("save", "settings", "message"),
    [
        (
            lambda folder: save_deberta(folder, num_labels=3),
            {},
            r"has 3 labels, a reward model has one; pass a sequence-classification model that was trained with num_lab",
        ),
        (
            lambda folder: save_decoder(
                folder,
                T5ForSequenceClassification(
                    T5Config(vocab_size=360, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, num_labels=1)
                ),
            ),
            {},
            r"is an encoder-decoder \(t5\), which Reward does not read",
        ),
        (save_deberta, {"template": "chat"}, "the tokenizer has no chat template; pass another template"),
        (save_deberta, {"template": "oasst"}, r"does not know <\|prompter\|> and <\|assistant\|>"),
        (
            lambda folder: save_decoder(folder, llama(), chat_tokenizer("{{ raise_exception('never') }}")),
            {},
            r"cannot write a question and its answer \(never\); pass another template",
        ),
        (
            lambda folder: save_decoder(folder, llama(), chat_tokenizer("{{ messages[0]['content'] }}")),
            {},
            r"cannot write a question and its answer \(it makes 'Name a fruit.' of them\)",
        ),
    ],
)
def test_model_that_is_no_reward_model_is_refused(
    save: Callable[[Path], Path], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        scored(save(tmp_path / "model"), **settings)


def test_max_tokens_out_of_bounds_is_refused() -> None:
    with pytest.raises(IndicatorError, match="max_tokens=4 leaves no room for text; pass 16 or more"):
        Reward(max_tokens=4)


def test_model_that_answers_no_number_gives_nan(tmp_path: Path) -> None:
    model = llama(pad_token_id=0)
    folder = save_decoder(tmp_path / "model", model)
    with torch.no_grad():
        # One token's embedding is broken: rows that hold it cannot be scored, the others can.
        model.model.embed_tokens.weight[chat_tokenizer()("?", add_special_tokens=False).input_ids[0]] = float("inf")
    model.save_pretrained(folder)
    found = Reward(model=str(folder), device="cpu").score(["Why?", "Why.", "Why?"], ["So."] * 3)["im_reward"]
    assert [math.isnan(value) for value in found] == [True, False, True]


def test_store_keeps_what_was_scored(pythia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.using_store(tmp_path):
        first = scored(pythia)
        monkeypatch.setattr(Reward, "engine", None)
        assert scored(pythia) == first
        with pytest.raises(TypeError):
            scored(pythia, template="plain")
