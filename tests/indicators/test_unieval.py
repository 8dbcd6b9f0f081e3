"""UniEval: parity with the scorer written out row by row, on small seeded T5 models.

``reference`` is an independent reading of the published method: the whole model, one text at a time, the softmax
over the whole vocabulary. The real checkpoint's published numbers are at the end, for where the Hub can be reached.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_unieval import make_model, save_tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from im_datasets.common.errors import ColumnsError, IndicatorError, ModelError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.indicators.t5_first_step import first_decoder_state
from im_datasets.indicators.unieval import DIMENSIONS, UniEval, sentences
from im_datasets.models import value_store as store
from im_datasets.models.batching import TokenBudget
from im_datasets.models.meter import metering

TEXT = "the a bee flies over red and blue flowers when it rains we stay at home , with soup and songs . why ?"
WORDS = TEXT.split()
ALL = tuple(DIMENSIONS)


def rows(number: int = 40) -> dict[str, list[Any]]:
    """Rows of many lengths, some of them alike, one without a response."""
    random = np.random.default_rng(7)

    def text(most: int) -> str:
        return " ".join(random.choice(WORDS, size=random.integers(1, most)))

    batch: dict[str, list[Any]] = {
        "prompt": [text(30) for _ in range(number)],
        "completion": [text(60) for _ in range(number)],
        "fact": [text(12) if row % 3 else None for row in range(number)],
    }
    batch["completion"][5] = batch["completion"][9]
    batch["completion"][7] = ""
    return batch


@pytest.fixture(scope="session")
def t5_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5's own kind of tokenizer with a vocabulary of words and letters."""
    return save_tokenizer(tmp_path_factory.mktemp("t5-tokenizer"), [*WORDS, *DIMENSIONS.values()])


@pytest.fixture(scope="session", params=["t5", "flan-t5"])
def folder(request: pytest.FixtureRequest, t5_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first T5 (head tied to the embeddings and scaled), and one as of version 1.1 (own head, gated layers)."""
    settings = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if request.param == "flan-t5" else {}
    return make_model(tmp_path_factory.mktemp(request.param), t5_tokenizer, **settings)


@pytest.fixture(scope="session")
def one_folder(t5_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("one-t5"), t5_tokenizer, feed_forward_proj="gated-gelu")


def reference(folder: Path, texts: list[str], max_length: int = 1024) -> list[float]:
    """The method as its authors run it, one text a call: labels, the whole forward, the whole softmax."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    yes, no = tokenizer("Yes")["input_ids"][0], tokenizer("No")["input_ids"][0]
    scores = []
    for text in texts:
        source = tokenizer(text, max_length=max_length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            said = model(
                input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=torch.tensor([[no]])
            ).logits.softmax(-1)[0, 0]
        scores.append(float(said[yes] / (said[yes] + said[no])))
    return scores


def asked(dimension: str, instruction: str, response: str, fact: str) -> list[str]:
    """The published inputs, spelled out once more."""
    history, knowledge = f" </s> dialogue history: {instruction}", f" </s> fact: {fact}"
    question, rest = {
        "naturalness": ("Is this a natural response in the dialogue?", ""),
        "understandability": ("Is this an understandable response in the dialogue?", ""),
        "coherence": ("Is this a coherent response given the dialogue history?", history),
        "groundedness": ("Is this response consistent with knowledge in the fact?", knowledge),
        "engagingness": (
            "Is this an engaging and informative response according to the dialogue history and fact?",
            history + knowledge,
        ),
    }[dimension]
    parts = sentences(response) if dimension == "engagingness" else [response]
    return [f"question: {question} </s> response: {part}{rest}" for part in parts]


def scored(indicator: UniEval, batch: dict[str, list[Any]], size: int) -> dict[str, list[float]]:
    """The columns, computed ``size`` rows at a time."""
    found: dict[str, list[float]] = {name: [] for name in indicator.writes}
    for start in range(0, len(batch["prompt"]), size):
        part = {name: values[start : start + size] for name, values in batch.items()}
        for name, values in indicator(part).items():
            found[name] += values
    return found


@pytest.mark.parametrize("dimension", ALL)
def test_unieval_equals_the_row_by_row_reference(folder, dimension):
    batch = rows()
    found = UniEval(model=str(folder), dimensions=(dimension,), fact_column="fact")(batch)[f"im_{dimension}"]
    answered = [row for row, text in enumerate(batch["completion"]) if text]
    texts = [
        asked(dimension, batch["prompt"][row], batch["completion"][row], batch["fact"][row] or "") for row in answered
    ]
    expected = iter(reference(folder, [text for parts in texts for text in parts]))
    sums = [sum(next(expected) for _ in parts) for parts in texts]
    assert np.std(sums) > 0.01
    assert [found[row] for row in answered] == pytest.approx(sums, abs=1e-5)
    assert [row for row, value in enumerate(found) if math.isnan(value)] == [7]


def test_unieval_writes_the_three_dimensions_of_the_v3_rule_by_default(one_folder):
    indicator = UniEval(model=str(one_folder))
    assert indicator.writes == ("im_naturalness", "im_coherence", "im_understandability")
    assert UniEval().model == "MingZhong/unieval-dialog"
    assert UniEval(device="cuda").dtype == "float32"
    assert indicator.describe()["dtype"] == "float32"
    assert all(f"im_{name}" in COLUMNS for name in ALL)


def test_unieval_values_do_not_depend_on_the_batch(folder):
    batch = rows()
    indicator = UniEval(model=str(folder))
    whole = scored(indicator, batch, 1000)
    for size in (1, 7):
        assert np.array_equal([*scored(indicator, batch, size).values()], [*whole.values()], equal_nan=True)
    turned = indicator({name: values[::-1] for name, values in batch.items()})
    assert np.array_equal([*turned.values()], [values[::-1] for values in whole.values()], equal_nan=True)


def test_unieval_reads_every_distinct_input_once(one_folder):
    batch = {"prompt": ["Why ?", "When ?", "Why ?"], "completion": ["it rains .", "it rains .", "it rains ."]}
    with metering() as meter:
        found = UniEval(model=str(one_folder))(batch)
    assert meter.computed == 1 + 1 + 2
    assert len(set(found["im_naturalness"])) == 1
    assert found["im_coherence"][0] == found["im_coherence"][2] != found["im_coherence"][1]


def test_unieval_takes_from_the_store_what_it_knows(one_folder, tmp_path):
    batch = rows(12)
    with store.using_store(tmp_path):
        first = UniEval(model=str(one_folder))(batch)
        with metering() as meter:
            again = UniEval(model=str(one_folder), dimensions=ALL)(batch)
        with metering() as other:
            UniEval(model=str(one_folder), max_tokens=20)(batch)
    assert np.array_equal([again[name] for name in first], [*first.values()], equal_nan=True)
    assert meter.reused == 3 * 11 - 2  # rows 5 and 9 are alike but for the history
    assert other.reused == 0


def test_unieval_cuts_at_the_right_and_counts_the_rows(one_folder):
    batch = rows()
    with metering() as meter:
        found = UniEval(model=str(one_folder), max_tokens=40)(batch)
    tokenizer = AutoTokenizer.from_pretrained(one_folder)
    answered = [row for row, text in enumerate(batch["completion"]) if text]
    for dimension in ("coherence", "naturalness"):
        texts = [asked(dimension, batch["prompt"][row], batch["completion"][row], "")[0] for row in answered]
        expected = reference(one_folder, texts, max_length=40)
        assert [found[f"im_{dimension}"][row] for row in answered] == pytest.approx(expected, abs=1e-5)
        if dimension == "coherence":
            assert meter.truncated == sum(len(ids) > 40 for ids in tokenizer(texts)["input_ids"])
            assert 0 < meter.truncated < len(answered)


def test_unieval_reads_1024_tokens(one_folder):
    words = " ".join(["bee"] * 1100)
    with metering() as meter:
        found = UniEval(model=str(one_folder))({"prompt": ["Why ?"], "completion": [words]})
        whole = UniEval(model=str(one_folder), max_tokens=None)({"prompt": ["Why ?"], "completion": [words]})
    assert meter.truncated == 1
    cut, uncut = (reference(one_folder, asked("naturalness", "", words, ""), limit)[0] for limit in (1024, 2048))
    assert found["im_naturalness"] == pytest.approx([cut], abs=1e-5)
    assert whole["im_naturalness"] == pytest.approx([uncut], abs=1e-5)
    assert cut != uncut


def test_engine_reads_the_separators_as_end_tokens(one_folder):
    (tokens,) = UniEval(model=str(one_folder)).engine().tokenize(["a </s> the </s> bee"])
    end = AutoTokenizer.from_pretrained(one_folder).eos_token_id
    assert [place for place, token in enumerate(tokens.ids) if token == end] == [1, 3, 5]


def test_unieval_takes_all_turns_before_the_response_as_history(one_folder):
    turns = ((("system", "stay at home"), ("user", "Why ?"), ("assistant", "it rains ."), ("user", "and when ?")),)
    found = UniEval(model=str(one_folder)).score_turns(Pairs([*turns], ["when it rains ."], [""]))
    history = "stay at home\nWhy ?\nit rains .\nand when ?"
    expected = reference(one_folder, asked("coherence", history, "when it rains .", ""))
    assert found["im_coherence"] == pytest.approx(expected, abs=1e-5)


def test_unieval_asks_questions_of_your_own(one_folder):
    question = "question: Is it about {{bees}}? </s> {fact} </s> {instruction} </s> {response}"
    indicator = UniEval(model=str(one_folder), dimensions=(), questions={"my_bees": question}, fact="red bees")
    found = indicator({"prompt": ["Why {fact} ?"], "completion": ["the {bee} flies ."]})
    text = "question: Is it about {bees}? </s> red bees </s> Why {fact} ? </s> the {bee} flies ."
    assert found == {"my_bees": pytest.approx(reference(one_folder, [text]), abs=1e-5)}


def test_unieval_asks_a_question_of_your_own_once_whatever_its_name(one_folder):
    """Only the published engagingness is asked of every sentence and summed."""
    batch = {"instruction": ["Hi"], "response": ["One. Two. Three."]}
    named = {name: {name: "question: Is it polite? </s> {response}"} for name in ("my_polite", "engagingness")}
    values = [
        UniEval(model=str(one_folder), dimensions=(), questions=question)(batch)[name]
        for name, question in named.items()
    ]
    assert values[0] == values[1]


def test_unieval_settings_are_plain_equal_and_hashable():
    ours = UniEval(questions={"my_own": "{response}"})
    again = UniEval(**json.loads(json.dumps(ours.settings())))
    assert ours == again
    assert len({ours, again, UniEval()}) == 2


def test_unieval_maps_over_a_dataset(one_folder):
    batch = rows(12)
    mapped = Dataset.from_dict(batch).map(UniEval(model=str(one_folder), fact_column="fact"), batched=True)
    direct = UniEval(model=str(one_folder))(batch)
    assert np.array_equal([mapped[name] for name in direct], [*direct.values()], equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimensions": ("fluency",)}, "no dimensions \\['fluency'\\]; known: naturalness, coherence"),
        ({"dimensions": ()}, "ask at least one"),
        ({"dimensions": ("coherence", "coherence")}, "each once"),
        ({"questions": {"im_coherence": "{response}"}}, "are columns of the published questions"),
        ({"questions": {"im_groundedness": "{response}"}}, "are columns of the published questions"),
        ({"questions": {"my_own": "Is it polite?"}}, "needs {response}"),
        ({"questions": {"my_own": "{response} {answer}"}}, "has the fields \\['answer', 'response'\\]"),
        ({"questions": {"my_own": "{response} {"}}, "cannot be read"),
        ({"max_tokens": 3}, "leaves no room"),
    ],
)
def test_unieval_refuses_settings_that_ask_nothing_clear(settings, message):
    with pytest.raises(IndicatorError, match=message):
        UniEval(**settings)


def test_unieval_refuses_facts_that_it_cannot_read(one_folder):
    batch = {"prompt": ["Why ?"], "completion": ["it rains ."], "fact": [["a", "b"]]}
    with pytest.raises(IndicatorError, match="holds list, not text"):
        UniEval(model=str(one_folder), fact_column="fact")(batch)
    with pytest.raises(IndicatorError, match="no column 'facts'"):
        UniEval(model=str(one_folder), fact_column="facts")(batch)
    with pytest.raises(IndicatorError, match="mapped by itself"):
        UniEval(model=str(one_folder), fact_column="fact").score(["Why ?"], ["it rains ."])
    with pytest.raises(ColumnsError, match="q"):
        UniEval(model=str(one_folder), fact_column="fact")({"q": ["Why ?"], "fact": ["it rains"]})


def test_unieval_refuses_a_model_of_another_type(t5_tokenizer, tmp_path):
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {f"{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    config = BartConfig(vocab_size=300, d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(t5_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="of the type 'bart'; UniEval asks a T5"):
        UniEval(model=str(tmp_path)).engine()


def test_unieval_refuses_a_tokenizer_that_does_not_tell_yes_from_no(tmp_path):
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("Y", -3.0), ("N", -3.0)]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(tmp_path)
    make_model(tmp_path, tmp_path)
    with pytest.raises(ModelError, match="does not tell Yes from No"):
        UniEval(model=str(tmp_path)).engine()


def test_first_step_equals_the_decoder(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    states = torch.randn(5, 12, 32, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor([12, 1, 7, 9, 3])[:, None]).long()
    with torch.inference_mode():
        expected = model.decoder(
            input_ids=torch.zeros(5, 1, dtype=torch.long), encoder_hidden_states=states, encoder_attention_mask=mask
        ).last_hidden_state[:, 0]
        found = model.lm_head(first_decoder_state(model, states, mask))
    scale = 32**-0.5 if model.config.scale_decoder_outputs else 1
    assert torch.allclose(found, model.lm_head(expected * scale), atol=1e-5)


@pytest.mark.filterwarnings("ignore:this CPU has no instructions")
def test_unieval_in_bfloat16_is_near_float32(one_folder):
    batch = rows()
    single, half = (UniEval(model=str(one_folder), dtype=dtype)(batch) for dtype in ("float32", "bfloat16"))
    for name in single:
        assert np.nanmax(np.abs(np.subtract(single[name], half[name]))) < 0.1


def test_unieval_goes_on_when_a_batch_does_not_fit(one_folder, monkeypatch):
    batch = rows()
    expected = UniEval(model=str(one_folder))(batch)
    indicator = UniEval(model=str(one_folder))
    engine = indicator.engine()

    def small(inputs):
        if inputs.ids.numel() > 200:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return engine.forward(inputs)

    starved = type(engine)(engine.tokenize, small, 1, engine.pad_id, engine.device, TokenBudget(512))
    monkeypatch.setattr(UniEval, "engine", lambda self: starved)
    assert np.array_equal([*indicator(batch).values()], [*expected.values()], equal_nan=True)


@pytest.fixture(scope="module")
def published() -> UniEval:
    """The published checkpoint, all dimensions."""
    name = os.environ.get("IM_UNIEVAL_MODEL", "MingZhong/unieval-dialog")
    indicator = UniEval(model=name, dimensions=ALL, fact_column="context", columns=Columns("source", "system_output"))
    try:
        indicator.engine()
    except ModelError as error:
        pytest.skip(f"no published checkpoint ({error}); IM_UNIEVAL_MODEL may name a folder of it")
    return indicator


@pytest.mark.network
def test_unieval_gives_the_published_scores_of_the_readme_example(published):
    # github.com/maszhongming/UniEval, README, task "dialogue".
    source = (
        "hi , do you know much about the internet ? \n i know a lot about different sites and some website design , "
        "how about you ? \n\n"
    )
    response = (
        "i do too . did you know the 3 horizontal line menu on apps and websites is called the hamburger button ?"
    )
    fact = "the 3 horizontal line menu on apps and websites is called a hamburger button .\n"
    expected = {
        "im_naturalness": 0.950218,
        "im_coherence": 0.973135,
        "im_engagingness": 1.750486,
        "im_groundedness": 0.999566,
        "im_understandability": 0.946209,
    }
    found = published({"source": [source], "system_output": [response], "context": [fact]})
    assert {name: values[0] for name, values in found.items()} == pytest.approx(expected, abs=2e-5)


@pytest.mark.network
@pytest.mark.shared_data
def test_unieval_gives_the_authors_180_predictions(published, shared_data):
    path = shared_data / "reference_values" / "unieval_topical_chat_result_first180_give.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    found = published({name: [row[name] for row in stored] for name in ("source", "system_output", "context")})
    for name in ("naturalness", "coherence", "groundedness", "understandability"):
        expected = [row["predict_scores"][name] for row in stored]
        assert found[f"im_{name}"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.shared_data
def test_sentences_are_enough_for_the_authors_sums(shared_data):
    # A sum of n scores is at most n: a split that finds too few sentences would show.
    path = shared_data / "reference_values" / "unieval_topical_chat_result_first180_give.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert all(row["predict_scores"]["engagingness"] <= len(sentences(row["system_output"])) for row in stored)
