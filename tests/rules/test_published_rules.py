"""v1 and v3 from end to end with local model folders: map, score and command line give the rule's own sum."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from tiny_reward import save_deberta, save_pythia
from tiny_unieval import save_unieval

from im_datasets import InstructMining, LinearRule, ScoringRecord
from im_datasets.indicators import KNNDistance, Length, Reward, UniEval
from im_datasets.models import inference
from im_datasets.models.meter import metering
from im_datasets.scoring.score import score

TOPICS = ["tea", "rain", "chess", "bread", "rivers", "clocks", "bees", "salt", "kites", "tea"]
ROWS = {
    "instruction": [f"Write a sentence about {topic}." for topic in TOPICS] + ["Say nothing."],
    "output": [f"Here is what I know of {topic}: {'people like it. ' * (i % 9 + 1)}" for i, topic in enumerate(TOPICS)]
    + [None],
}
ROWS["output"][-2] = ROWS["output"][0]


@pytest.fixture(scope="module")
def pythia(tmp_path_factory):
    return str(save_pythia(tmp_path_factory.mktemp("pythia")))


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    return str(save_deberta(tmp_path_factory.mktemp("deberta")))


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return str(save_unieval(tmp_path_factory.mktemp("t5")))


@pytest.fixture(scope="module")
def v3(pythia, t5):
    return InstructMining("v3", indicators=[Reward(model=pythia), UniEval(model=t5)])


def test_v3_is_the_published_sum_of_its_columns(v3):
    scored = Dataset.from_dict(ROWS).map(v3, batched=True, batch_size=4)
    for row in range(len(TOPICS)):
        reward, natural, coherent, understandable = (
            scored[name][row] for name in ("im_reward", "im_naturalness", "im_coherence", "im_understandability")
        )
        by_hand = 0.0274 - 0.0078 * reward + 0.4421 * understandable - 0.3212 * natural - 0.1520 * coherent
        assert scored["im_log_loss"][row] == pytest.approx(by_hand, rel=1e-12)
    assert math.isnan(scored["im_log_loss"][len(TOPICS)])
    assert scored["im_unscorable"][len(TOPICS)] == "missing response"


def test_v3_computes_its_own_indicators_and_each_input_once(v3):
    assert [type(indicator) for indicator in v3.indicators] == [Reward, UniEval]
    with metering() as meter:
        v3(ROWS)
    assert meter.computed == 9 + 3 * 9  # ten rows, two of them alike; a reward and three questions each


def test_v3_is_the_same_in_any_batch_and_process(v3):
    dataset = Dataset.from_dict(ROWS)
    whole = dataset.map(v3, batched=True)
    for settings in ({"batch_size": 1}, {"batch_size": 7}, {"num_proc": 2, "with_rank": True}):
        again = dataset.map(v3, batched=True, **settings)
        for name in v3.writes[:-1]:
            assert np.array_equal(again[name][:], whole[name][:], equal_nan=True), (name, settings)


def test_v3_knows_its_weakness():
    assert any("nearly cancel" in caveat for caveat in LinearRule.load("v3").caveats)
    assert UniEval().dtype == "float32"


def test_a_reward_that_is_not_finite_makes_the_row_unscorable(v3, monkeypatch):
    run = inference.BatchRunner._run

    def broken(self, batch):
        values = run(self, batch)
        return np.where(batch.lengths[:, None] > 120, np.nan, values)

    monkeypatch.setattr(inference.BatchRunner, "_run", broken)
    record = score(Dataset.from_dict(ROWS), v3.rule, indicators=v3.indicators, describe=False, progress=False).record
    assert 0 < record.unscorable["no im_reward"] < len(TOPICS)
    assert record.indicators[0].unscored == record.unscorable["no im_reward"]


def test_v1_takes_length_and_neighbours_beside_a_pair_model(deberta):
    dataset = Dataset.from_dict(ROWS)
    v1 = InstructMining("v1", indicators=[Reward(model=deberta)]).fit(dataset)
    scored = dataset.map(v1, batched=True)
    for row in range(len(TOPICS)):
        reward, length, distance = (scored[name][row] for name in ("im_reward", "im_output_length", "im_knn_6"))
        by_hand = 1.0694 - 0.1498 * reward + 8.257e-5 * length - 0.9350 * distance
        assert scored["im_log_loss"][row] == pytest.approx(by_hand, rel=1e-12)
    assert {Reward, Length} <= {type(indicator) for indicator in v1.indicators}
    assert any(isinstance(indicator, KNNDistance) for indicator in InstructMining("v1").indicators)


def test_mine_by_v3_from_the_command_line_and_nothing_scored_twice(pythia, t5, tmp_path):
    data = tmp_path / "rows.jsonl"
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {**os.environ, "IM_DATASETS_STORE": "on", "IM_DATASETS_CACHE": str(tmp_path / "cache")}
    models = ["--rule", "v3", "--reward-model", pythia, "--unieval-model", t5]

    def mine(name, *more):
        code = "from im_datasets.cli.main import main; main()"
        command = [sys.executable, "-W", "error", "-c", code, "mine", str(data), *models, "--out", name, *more]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        record = ScoringRecord.load(tmp_path / name / "record.json")
        return {indicator.name: indicator for indicator in record.indicators}

    first = mine("one", "--top-k", "3")
    kept = load_dataset(str(tmp_path / "one"), split="train")
    assert len(kept) == 3
    assert kept["im_log_loss"][:] == sorted(kept["im_log_loss"][:])
    assert first["Reward"].model["revision"].startswith("sha256:")
    assert first["Reward"].settings["model"] == pythia.rpartition("/")[2]
    assert pythia not in (tmp_path / "one" / "record.json").read_text()
    assert first["UniEval"].tokens > 0
    again = mine("two", "--top-k", "4")
    assert (again["Reward"].tokens, again["Reward"].reused) == (0, 9)
    assert (again["UniEval"].tokens, again["UniEval"].reused) == (0, 27)
    off = mine("three", "--top-k", "5", "--no-cache")
    assert (off["Reward"].tokens, off["Reward"].reused) == (first["Reward"].tokens, 0)
