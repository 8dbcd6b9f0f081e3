"""Where half of the rows are spoiled on purpose, the rule fitted on finetuning runs finds them, and selection pays.

The stage of the experiment (``examples/calibration/known_answer.py``) on rows so simple that a tiny model learns in
some dozens of steps which response goes with which instruction.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from im_datasets.calibration.experiments.evaluation import Evaluation
from im_datasets.calibration.experiments.experiment import Experiment
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.experiments.mixtures import Mixing
from im_datasets.calibration.experiments.pool import make_pool
from im_datasets.data.pairs import Pairs

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "calibration"))

from known_answer import INTACT, KnownAnswer, known_answer, spoil

FRUITS = ("apple", "plum", "pear", "fig", "grape")

TRAINING = Training(
    epochs=3, learning_rate=1e-2, batch_size=4, micro_batch_size=4, max_tokens=64, template="plain", device="cpu"
)


def make_rows(number, seed=0):
    """Which fruit to write, asked more or less briefly, and that fruit six times."""
    random = np.random.default_rng(seed)
    words, pleas = random.choice(FRUITS, size=number).tolist(), random.integers(3, size=number).tolist()
    return [
        {"instruction": f"Write {word} here{', please' * more}, row {place}.", "response": " ".join([word] * 6)}
        for place, (word, more) in enumerate(zip(words, pleas, strict=True))
    ]


def test_spoil_gives_another_rows_response_or_cuts():
    rows = [{"instruction": str(place), "response": f"{place} a b c d e"} for place in range(10)]
    spoiled = spoil(rows)
    assert [row["instruction"] for row in spoiled] == [row["instruction"] for row in rows]
    for place, (row, other) in enumerate(zip(rows, spoiled, strict=True)):
        assert other["response"] != row["response"]
        if place % 2:
            assert row["response"].startswith(other["response"])
        else:
            assert other["response"] in [each["response"] for each in rows]


@pytest.fixture(scope="module")
def found(learning_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("known")
    asked = [(f"Write {word} here, row {place}.", " ".join([word] * 6)) for word in FRUITS for place in range(8)]
    held = Evaluation("held", Pairs.of([each[0] for each in asked], [each[1] for each in asked]))

    def experiment(candidates, folder):
        # Quality knows, as well as a noisy indicator does; length and diversity know nothing.
        random, scored = np.random.default_rng(int(folder == out)), {}
        for name, path in candidates.items():
            rows = Dataset.from_json(str(path))
            truth = random.normal(1.5 if name == INTACT else -1.5, 1.0, size=len(rows))
            noise = {
                "im_mtld": random.gamma(4.0, 10.0, len(rows)),
                "im_output_length": random.gamma(4.0, 10.0, len(rows)),
            }
            columns = {"im_quality": truth, **noise}
            scored[name] = Dataset.from_dict(rows[:] | {n: values.tolist() for n, values in columns.items()})
        return Experiment.of(make_pool(scored), [held], learning_model, TRAINING, folder, progress=False)

    plan = KnownAnswer(Mixing(subsets=12, rows=60, concentration=0.3), rows=80, size=60, seeds=(0, 1, 2))
    return known_answer(make_rows(320), plan, experiment, out), out


def test_the_fitted_rule_ranks_spoiled_rows_low(found):
    told, _ = found
    assert told["terms"].keys() == {"im_quality"}
    assert told["terms"]["im_quality"] < 0
    assert told["auc_fitting_rows"] > 0.9
    assert told["auc_held_out_rows"] > 0.9
    assert told["spoiled_among_selected"] < 0.2 * told["selected"]


def test_selection_clearly_wins_over_random_rows(found):
    _, out = found
    (against_random,) = json.loads((out / "held" / "comparison.json").read_text())["differences"]
    assert against_random["baseline"] == "random"
    assert against_random["difference"] < -0.1
    assert against_random["win_rate"] > 0.9
