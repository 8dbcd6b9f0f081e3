"""The shipped head, its features, and what it ranks: own sentences, hand-worked numbers."""

import json
import os
import pickle
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import pytest

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators import quality as module
from im_datasets.indicators.quality import (
    RECORD,
    WEIGHTS,
    Head,
    Quality,
    head_files,
    load_head,
    load_record,
    pair_features,
    unpack,
)
from im_datasets.indicators.quality_features import text_features
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import EMBEDDED
from im_datasets.models.static_embedder import STATIC

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("IM_SHARED_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (SHARED / "dolly" / "dolly_3k.json").is_file(), reason=f"the training rows are not in {SHARED}"
)

QUESTIONS = {
    "Why does bread rise in the oven?": (
        "Yeast in the dough feeds on sugar and gives off carbon dioxide. In the heat the gas expands, and the gluten "
        "holds it until the crust has set."
    ),
    "How do I keep basil alive on a window sill?": (
        "Give the basil at least six hours of light a day and water it when the top of the soil feels dry. Pinch off "
        "the tips every week, so that the plant grows bushy instead of flowering."
    ),
    "Explain what a leap year is.": (
        "A leap year has 366 days instead of 365. The extra day, February 29, makes up for the quarter of a day by "
        "which the Earth's orbit is longer than a calendar year."
    ),
    "Suggest three things to take on a night hike.": (
        "1. A headlamp with fresh batteries, because it leaves both hands free.\n2. A warm layer, since it cools down "
        "quickly after sunset.\n3. A paper map, in case the phone runs out of power."
    ),
    "A train leaves at 9:40 and arrives at 11:05. How long is the ride?": (
        "From 9:40 to 10:40 is one hour, and from 10:40 to 11:05 is 25 minutes. The ride takes 1 hour and 25 minutes."
    ),
}
ANSWERS = list(QUESTIONS.values())


def _scramble(text: str) -> str:
    words = text.split()
    return " ".join(words[i] for i in np.random.default_rng(3).permutation(len(words)))


def _cut(text: str) -> str:
    words = text.split()
    return " ".join(words[: len(words) * 6 // 10])


SPOILED = {
    "another row's": lambda question, answer: ANSWERS[(ANSWERS.index(answer) + 2) % len(ANSWERS)],
    "cut": lambda question, answer: _cut(answer),
    "scrambled": lambda question, answer: _scramble(answer),
    "looped": lambda question, answer: " ".join([answer] * 3),
    "echo": lambda question, answer: question,
    "empty phrase": lambda question, answer: "Sure, here you go.",
    "wrong language": lambda question, answer: "面包在烤箱里会膨胀，因为酵母产生二氧化碳。",
}
KNOWN_MISSES = {"cut": {"Suggest three things to take on a night hike."}}
"""Cut, the list loses its line breaks and ends on what may be a sentence without its stop: one of the 3 in 100."""
SHORT = {
    "What is 3 + 4?": ("7", "Sure, here you go."),
    "What is the capital of France?": ("Paris", "What is the capital of France?"),
    "Classify the sentiment of this review: 'I loved every minute of it.'": ("Positive", "Bread needs yeast."),
    "List the three primary colours.": ("- red\n- yellow\n- blue", "List the three primary colours."),
    "Write a Python expression for the square of x.": ("x ** 2", "I hope this helps!"),
    'Give {"name": ...} as JSON for a cat called Tom.': ('{"name": "Tom"}', "Tom and the and is of a cat"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_quality_ranks_an_answer_above_its_spoiled_version(kind):
    rows = [(q, text) for q, a in QUESTIONS.items() for text in (a, SPOILED[kind](q, a))]
    scores = Quality().score([q for q, _ in rows], [a for _, a in rows])["im_quality"]
    missed = {q for q, good, bad in zip(QUESTIONS, scores[::2], scores[1::2], strict=True) if good <= bad}
    assert missed == KNOWN_MISSES.get(kind, set())


@pytest.mark.parametrize("question", SHORT)
def test_quality_does_not_take_a_short_answer_for_a_degraded_one(question):
    good, bad = Quality().score([question] * 2, list(SHORT[question]))["im_quality"]
    assert good > bad


def test_quality_is_the_same_for_every_batch_size(monkeypatch):
    questions = list(QUESTIONS) * 4
    answers = [text for a in ANSWERS for text in (a, _cut(a), _scramble(a), a * 2)]
    monkeypatch.setattr("im_datasets.models.embedder._CACHE.max_bytes", 0)
    quality = Quality()
    results = []
    for size in (1, 7, 1000):
        values: list[float] = []
        for start in range(0, len(questions), size):
            batch = {"instruction": questions[start : start + size], "output": answers[start : start + size]}
            values += quality(batch)["im_quality"]
        results.append(values)
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
@pytest.mark.xdist_group("static")
@pytest.mark.parametrize("kind", ["another row's", "looped", "echo", "empty phrase", "wrong language"])
def test_quality_over_static_vectors_ranks_an_answer_above_its_spoiled_version(kind):
    rows = [(q, text) for q, a in QUESTIONS.items() for text in (a, SPOILED[kind](q, a))]
    static = Quality(embedder=Embedder(model=STATIC))
    scores = static.score([q for q, _ in rows], [a for _, a in rows])["im_quality"]
    assert [q for q, good, bad in zip(QUESTIONS, scores[::2], scores[1::2], strict=True) if good <= bad] == []


def test_quality_leaves_unscorable_rows_nan():
    scores = Quality()({"instruction": ["Name a fruit.", "Name a fruit."], "output": ["An apple.", " "]})
    assert [np.isnan(score) for score in scores["im_quality"]] == [False, True]


def test_quality_is_small_and_equal_after_pickling():
    data = pickle.dumps(Quality())
    assert len(data) < 1000
    assert pickle.loads(data) == Quality()


def test_load_head_that_is_not_there_names_the_training(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STATIC_WEIGHTS", tmp_path / "none.safetensors")
    load_head.cache_clear()
    with pytest.raises(IndicatorError, match=r"no head of Quality ships for the static embedder; .*--embedder static"):
        Quality(embedder=Embedder(model=STATIC)).score(["a"], ["b"])
    load_head.cache_clear()


def test_head_refuses_a_static_model_that_gives_other_vectors(monkeypatch):
    monkeypatch.setattr(Embedder, "embed", lambda self, texts: np.full((len(texts), 2), 0.5, dtype=np.float32))
    module._check_probe(np.full((3, 2), 0.502, dtype=np.float16), STATIC)
    with pytest.raises(IndicatorError, match=r"the static embedder here gives other vectors \(off by 0\.0\d*\)"):
        module._check_probe(np.full((3, 2), 0.51, dtype=np.float16), STATIC)


@pytest.mark.parametrize(
    "embedder", [Embedder(model="someone/encoder"), Embedder(dtype="bfloat16"), Embedder(max_tokens=64)]
)
def test_quality_refuses_another_embedder(embedder):
    with pytest.raises(IndicatorError, match="Quality knows only the vectors of Embedder"):
        Quality(embedder=embedder)


@pytest.mark.parametrize("model", [EMBEDDED, STATIC])
def test_weights_are_those_the_record_names(model):
    weights, _ = head_files(model)
    assert sha256(weights.read_bytes()).hexdigest() == load_record(model)["weights_sha256"]
    assert weights.stat().st_size < 80_000


def test_load_head_refuses_weights_the_record_does_not_name(monkeypatch, tmp_path):
    other = tmp_path / WEIGHTS.name
    other.write_bytes(WEIGHTS.read_bytes() + b" ")
    monkeypatch.setattr(module, "WEIGHTS", other)
    load_head.cache_clear()
    with pytest.raises(IndicatorError, match="its training record names"):
        load_head()
    load_head.cache_clear()


def test_load_head_reads_the_file_once():
    load_head.cache_clear()
    assert load_head() is load_head()


def test_logit_of_a_small_head_worked_by_hand():
    # Units: tanh(1*2 + 0*3 - 2) = 0 and tanh(0*2 + 1*3 - 2) = tanh(1); out: 5*0 + 2*tanh(1) + 0.5.
    head = Head(np.eye(2), np.array([-2.0, -2.0]), np.array([5.0, 2.0]), np.array([0.5]))
    assert head.logit(np.array([2.0, 3.0])) == 2 * np.tanh(1.0) + 0.5


def test_unpack_multiplies_bytes_by_their_steps():
    head = unpack(
        {
            "vectors": np.array([[[1, 2], [3, -4], [127, 0]]], dtype=np.int8),
            "steps": np.array([[0.5, 0.25, 2.0]], dtype=np.float32),
            "rest": np.array([[7.0]], dtype=np.float16),
            "hidden_bias": np.zeros(1, dtype=np.float32),
            "output": np.ones(1, dtype=np.float32),
            "output_bias": np.zeros(1, dtype=np.float32),
        }
    )
    assert head.hidden.tolist() == [[0.5, 1.0, 0.75, -1.0, 254.0, 0.0, 7.0]]


def test_pair_features_worked_by_hand():
    asked, answered = np.array([0.5, 0.5], dtype=np.float32), np.array([1.0, -0.5], dtype=np.float32)
    features = pair_features("Name a fruit.", "An apple.", asked, answered)
    # Response, product, difference, cosine 0.5 - 0.25, then the surface.
    assert features[:7].tolist() == [1.0, -0.5, 0.5, -0.25, 0.5, 1.0, 0.25]
    assert features[7:].tolist() == list(text_features("Name a fruit.", "An apple."))


@pytest.mark.parametrize("model", [EMBEDDED, STATIC])
def test_record_shows_length_beside_every_figure(model):
    record = json.loads(head_files(model)[1].read_text(encoding="utf-8"))
    for figures in [*record["held_out"].values(), *record["preferences"].values()]:
        assert {"pairs", "accuracy", "length_accuracy", "longer_is_worse", "longer_is_better"} <= set(figures)
    assert all(len(source["sha256"]) == 64 and source["licence"] for source in record["sources"].values())


@needs_data
@pytest.mark.shared_data
@pytest.mark.slow
def test_record_agrees_with_a_sample_of_its_held_out_rows(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "quality"))
    import degrade
    import rows as training_rows

    record, scorer = load_record(), Quality()
    held = [row for row in training_rows.load_rows(SHARED) if row.key[:12] in set(record["held_out_rows"])][:60]
    assert len(held) == 60
    for kind, word, spoil in (
        ("echo", "echo", degrade.echo),
        ("scrambled", "scramble", degrade.scramble),
        ("cut", "cut", degrade.cut),
    ):
        seeded = [(row, spoil(row, Random(f"{record['settings']['seed']}:{word}:{row.key}"))) for row in held]
        pairs = [(row, text) for row, text in seeded if text is not None]
        good = scorer.score([r.instruction for r, _ in pairs], [r.response for r, _ in pairs])["im_quality"]
        bad = scorer.score([r.instruction for r, _ in pairs], [text for _, text in pairs])["im_quality"]
        accuracy = np.mean(np.array(good) > np.array(bad))
        # Three standard errors of the sample.
        stated = record["held_out"][kind]["accuracy"]
        assert abs(accuracy - stated) <= 3 * max(0.02, np.sqrt(stated * (1 - stated) / len(pairs)))


@needs_data
@pytest.mark.shared_data
@pytest.mark.slow
def test_train_twice_at_toy_size_gives_the_same_bytes(tmp_path):
    script = ROOT / "examples" / "quality" / "train.py"
    for name in ("first", "second"):
        subprocess.run(
            [sys.executable, script, "--data", SHARED, "--out", tmp_path / name, "--rows", "40"],
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    for file in (WEIGHTS.name, RECORD.name):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_docs_and_card_show_every_held_out_figure_of_the_record():
    held_out = json.loads(RECORD.read_text())["held_out"]
    page, card = ((ROOT / path).read_text() for path in ("docs/indicators.md", "metrics/im_quality/README.md"))
    for kind, told in held_out.items():
        numbers = [f"{told[name]:.3f}" for name in ("accuracy", "auc", "length_accuracy")]
        assert f"| {kind} | {' | '.join(numbers)} | {told['pairs']:,} |" in page
        assert f"| {kind} | {numbers[0]} |" in card


def test_the_size_of_the_weights_is_told_as_it_is():
    size = f"{WEIGHTS.stat().st_size:,} bytes"
    for path in ("docs/indicators.md", "metrics/im_quality/README.md"):
        assert size in " ".join((ROOT / path).read_text().split())
