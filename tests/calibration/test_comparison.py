"""Baselines by their columns, and the win of a rule that knows which rows are broken."""

import json

import numpy as np
import pytest
from datasets import Dataset

from im_datasets.calibration.comparison import BASELINES, Comparison, compare
from im_datasets.calibration.differences import paired_difference
from im_datasets.calibration.experiments.evaluation import Evaluation
from im_datasets.calibration.experiments.experiment import Experiment
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.experiments.pool import make_pool
from im_datasets.calibration.runs import Run
from im_datasets.common.errors import CalibrationError
from im_datasets.data.pairs import Pairs
from im_datasets.rules.linear import LinearRule, Term

RULE = LinearRule("by-quality", "higher is better", 0.0, (Term("im_quality", -1.0),))


def test_baselines_rank_by_their_column():
    texts = {"instruction": ["a", "b", "c"], "response": ["1", "2", "3"]}
    scores = {"im_mtld": [1.0, 3.0, 2.0], "im_ifd": [0.9, 1.2, 0.95], "im_perplexity": [5.0, 2.0, 9.0]}
    pool = make_pool({"one": Dataset.from_dict({**texts, **scores})})
    assert BASELINES["mtld"].ranked(pool).tolist() == [1, 2, 0]
    assert BASELINES["ifd"].ranked(pool).tolist() == [2, 0]
    assert BASELINES["perplexity"].ranked(pool).tolist() == [1, 0, 2]


def _experiment(pool, base_model, folder):
    training = Training(
        epochs=3, learning_rate=1e-2, batch_size=8, micro_batch_size=8, max_tokens=64, template="plain", device="cpu"
    )
    words = ["apple", "plum", "pear", "fig", "grape"] * 2
    asked = [f"Write {word} once and once more." for word in words]
    held = Evaluation("held", Pairs.of(asked, [f"{word} {word}" for word in words]))
    return Experiment.of(pool, [held], base_model, training, folder, progress=False)


@pytest.fixture(scope="module")
def broken_half():
    """Rows of which every other one has another row's response, cut short; the score knows."""
    random = np.random.default_rng(0)
    words = [("apple", "plum", "pear", "fig", "grape")[place] for place in random.integers(5, size=160)]
    good = [place % 2 == 0 for place in range(160)]
    answers = [f"{w} " * (p % 3 + 1) if g else "".join(random.permutation(list("qxzvkj"))) for p, (w, g) in
               enumerate(zip(words, good, strict=True))]  # fmt: skip
    quality = random.normal(np.where(good, 1.5, -1.5))
    columns = {"instruction": [f"Write {word} {place}." for place, word in enumerate(words)], "response": answers}
    scores = {"im_quality": quality.tolist(), "im_output_length": [float(len(answer)) for answer in answers]}
    return make_pool({"rows": Dataset.from_dict(columns | scores)})


def test_compare_shows_a_clear_win_over_a_dataset_half_broken(broken_half, learning_model, folder):
    experiment = _experiment(broken_half, learning_model, folder)
    found = compare(experiment, RULE, sizes=[48], seeds=[0, 1, 2], baselines=["random"])
    (against_random,) = found.differences
    assert against_random.verdict == "better"
    assert against_random.win_rate > 0.8
    assert against_random.selected_loss < found.base_losses["held"]
    found.save(folder)
    saved = json.loads((folder / "comparison.json").read_text())
    assert saved["differences"][0]["verdict"] == "better"
    assert "| held | 48 | random |" in (folder / "comparison.md").read_text()
    assert (folder / "comparison.svg").is_file()
    assert (folder / "comparison.png").is_file()


def test_compare_shows_a_loss_of_a_rule_that_is_the_wrong_way_round(broken_half, learning_model, folder):
    backwards = LinearRule("backwards", "b", 0.0, (Term("im_quality", 1.0),))
    experiment = _experiment(broken_half, learning_model, folder)
    found = compare(experiment, backwards, sizes=[48], seeds=[0, 1], baselines=["random"])
    assert found.differences[0].verdict == "worse"
    assert "Fewer than five seeds: read the intervals with caution." in found.notes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sizes": [100]}, "size=100; it must be from 1 to 99"),
        ({"sizes": []}, "no size to compare at"),
        ({"sizes": [5], "seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"sizes": [5], "baselines": ["best"]}, "baseline 'best' is unknown; known: random, full, length"),
        ({"sizes": [5], "baselines": ["reward"]}, "baseline 'reward' needs im_reward, which was not scored"),
    ],
)
def test_compare_refuses_what_cannot_be_compared(pool, base_model, folder, given, message):
    with pytest.raises(CalibrationError, match=message):
        compare(_experiment(pool, base_model, folder), RULE, **given)


def test_table_of_a_comparison_is_markdown():
    def run(nats):
        return Run("r", {}, {"e": 0.0}, rows=10, details={"examples": {"e": {"nats": nats, "tokens": [1, 2, 4]}}})

    difference = paired_difference([run([1.0, 4.0, 4.0])], [run([2.0, 4.0, 8.0])], "e", 5, "random")
    text = Comparison((difference,), {}, (0,), "r", (), {}).table()
    assert text.splitlines()[2].startswith("| e | 5 | random | 1.2857 | 2.0000 | -0.7143 (")
    assert len({line.count("|") for line in text.splitlines()}) == 1
