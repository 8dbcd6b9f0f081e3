"""Candidates: texts in the order asked, means by hand, unscored and contaminated rows left out, scored once."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from im_datasets.calibration.experiments import pool as module
from im_datasets.calibration.experiments.pool import load_pool, make_pool, named_sources, random_rows
from im_datasets.common.errors import CalibrationError, RuleError
from im_datasets.indicators import MTLD, KNNDistance, Perplexity, Similarity
from im_datasets.indicators.settings import identity
from im_datasets.models import checkpoints
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import folder_digest
from im_datasets.rules.instruct_mining import InstructMining, settings_of
from im_datasets.rules.linear import LinearRule, Term


def dataset(**columns):
    texts = {"instruction": ["a", "b", "c"], "response": ["1", "2", "3"]}
    return Dataset.from_dict({**texts, "im_mtld": [3.0, 1.0, 2.0], **columns})


def test_pairs_come_in_the_order_of_the_rows():
    pool = make_pool({"one": dataset(), "two": dataset(response=["4", "5", "6"])})
    assert pool.pairs(np.array([5, 0, 4, 2])).responses == ["6", "1", "5", "3"]


def test_means_and_composition_are_of_the_rows():
    pool = make_pool({"one": dataset(), "two": dataset(im_mtld=[10.0, 20.0, 30.0])})
    assert pool.means(np.array([0, 1, 4])) == {"im_mtld": 8.0}
    assert pool.composition(np.array([0, 1, 4])) == {"one": 2, "two": 1}


def test_random_rows_of_a_smaller_size_are_part_of_a_larger_draw(pool):
    assert random_rows(pool, 10, 3).tolist() == random_rows(pool, 30, 3)[:10].tolist()
    assert random_rows(pool, 10, 3).tolist() != random_rows(pool, 10, 4).tolist()


def test_ranked_is_lowest_prediction_first():
    rule = LinearRule("r", "r", 0.0, (Term("im_mtld", -1.0),))
    assert make_pool({"one": dataset()}).ranked(rule).tolist() == [0, 2, 1]


def test_make_pool_leaves_out_what_is_not_scored_and_says_so():
    rows = dataset(im_mtld=[3.0, float("nan"), 2.0], im_unscorable=["", "", "empty response"])
    pool = make_pool({"one": rows})
    assert pool.row.tolist() == [0]
    assert pool.left_out == {"one": {"empty response": 1, "no im_mtld": 1}}


def test_make_pool_without_a_candidate_is_an_error():
    with pytest.raises(CalibrationError, match="no row of one has a value of every indicator"):
        make_pool({"one": dataset(im_mtld=[float("nan")] * 3)})
    with pytest.raises(CalibrationError, match="no indicator column that all of one have"):
        make_pool({"one": dataset().remove_columns("im_mtld")})
    with pytest.raises(CalibrationError, match="no candidate dataset"):
        make_pool({})


def test_without_leaves_out_repeats_of_evaluation_instructions():
    pool = make_pool({"one": dataset(instruction=["Name a river.", "Name a hill.", "Name a lake."])})
    clean = pool.without(["name a HILL"])
    assert clean.pairs(np.arange(2)).instructions == ["Name a river.", "Name a lake."]
    assert clean.scores["im_mtld"].tolist() == [3.0, 2.0]
    assert clean.left_out == {"one": {"contaminated": 1}}
    assert pool.without([]) is pool


def test_digest_tells_rows_order_and_dataset_apart():
    one, two = make_pool({"one": dataset()}), make_pool({"one": dataset(response=["7", "8", "9"])})
    digests = {p.digest(np.array(r)) for p in (one, two) for r in ([0, 1], [1, 0], [0])}
    assert len(digests) == 6
    assert one.digest(np.array([0, 1])) == make_pool({"one": dataset()}).digest(np.array([0, 1]))


def test_load_pool_scores_once(tmp_path, monkeypatch):
    texts = [{"instruction": f"Say {word}.", "response": f"{word}, of course"} for word in "abcdefgh"]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in texts))
    first = load_pool([f"mine={data}"], tmp_path / "out", progress=False)
    monkeypatch.setattr(module, "score", lambda *args, **settings: pytest.fail("scored again"))
    again = load_pool([f"mine={data}"], tmp_path / "out", progress=False)
    assert first.names == ("mine",)
    assert sorted(first.scores) == ["im_input_length", "im_knn_6", "im_mtld", "im_output_length", "im_quality",
                                    "im_similarity"]  # fmt: skip
    assert {name: values.tolist() for name, values in first.scores.items()} == {
        name: values.tolist() for name, values in again.scores.items()
    }
    assert first.digest(np.arange(8)) == again.digest(np.arange(8))
    assert again.indicators["MTLD"] == {}
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"of course" not in kept


def test_indicator_settings_of_a_pool_make_the_same_indicators_by_a_rule(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(json.dumps({"instruction": f"Say {w}.", "response": f"{w}, yes"}) + "\n" for w in "abcdefgh")
    )
    short = Embedder(max_tokens=64)
    own = [MTLD(threshold=0.5), Similarity(embedder=short), KNNDistance(k=6, embedder=short)]
    pool = load_pool([str(data)], tmp_path / "out", indicators=own, progress=False)
    columns = ("im_mtld", "im_similarity", "im_knn_6")
    rule = LinearRule("r", "r", 0.0, tuple(Term(name, 1.0) for name in columns), indicators=pool.indicators)
    rule.save(tmp_path / "rule.json")
    assert InstructMining(tmp_path / "rule.json").indicators == tuple(own)


@pytest.fixture
def likelihood(base_model, tmp_path):
    """From a folder's name and a device to the pool's data and an indicator with a copy of the model there."""
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(json.dumps({"instruction": f"Say {w}.", "response": f"{w}, yes"}) + "\n" for w in "abcdefgh")
    )

    def make(place, **settings):
        folder = shutil.copytree(base_model, tmp_path / place, dirs_exist_ok=True)
        return str(data), Perplexity(model=str(folder), template="plain", **settings)

    return make


def test_a_pool_is_the_same_wherever_its_local_model_lies_and_runs(likelihood, tmp_path, monkeypatch):
    data, here = likelihood("here")
    first = load_pool([data], tmp_path / "out", indicators=[here], progress=False)
    monkeypatch.setattr(module, "score", lambda *args, **settings: pytest.fail("scored again"))
    _, there = likelihood("there", device="cpu", compile=True)
    again = load_pool([data], tmp_path / "out", indicators=[there], progress=False)
    assert again.digest(np.arange(8)) == first.digest(np.arange(8))
    stated = again.indicators["Perplexity"]
    assert stated["model"] == str(tmp_path / "there")
    assert not {"device", "compile"} & stated.keys()
    assert stated["weights"] == first.indicators["Perplexity"]["weights"] == folder_digest(tmp_path / "here")


def test_a_pool_is_another_with_another_dtype_or_encoder():
    assert identity(Similarity()) == identity(Similarity(embedder=Embedder(device="cpu")))
    identities = [Similarity(), Similarity(embedder=Embedder(max_tokens=64)), Similarity(embedder=Embedder("static"))]
    assert len({json.dumps(identity(indicator)) for indicator in identities}) == 3


def test_dtype_of_the_device_is_part_of_a_pool_and_the_device_is_not(likelihood, monkeypatch):
    _, indicator = likelihood("here")
    monkeypatch.setattr(checkpoints, "choose_device", lambda device: device or "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    half, whole = (identity(replace(indicator, device="cuda", dtype=dtype)) for dtype in (None, "float32"))
    assert half["dtype"] == "bfloat16"
    assert whole == identity(indicator) != half


def test_a_rule_with_a_local_model_runs_again_and_refuses_another_model(likelihood, tmp_path):
    data, indicator = likelihood("here", device="cpu")
    pool = load_pool([data], tmp_path / "out", indicators=[indicator], progress=False)
    rule = LinearRule("r", "r", 0.0, (Term("im_perplexity", 1.0),), indicators=pool.indicators)
    rule.save(tmp_path / "rule.json")
    (again,) = InstructMining(tmp_path / "rule.json").indicators
    assert again == replace(indicator, device=None)
    assert load_pool([data], tmp_path / "two", rule=rule, progress=False).scores["im_perplexity"].tolist() == (
        pool.scores["im_perplexity"].tolist()
    )
    assert settings_of(rule, "Perplexity", model="other")["model"] == "other"
    (tmp_path / "here" / "config.json").write_text("{}")
    with pytest.raises(RuleError, match=r"by the model .*here with sha256:.*in this folder has sha256:"):
        InstructMining(rule)
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(RuleError, match=r"there is no such folder; pass indicators=\[Perplexity\(…\)\]"):
        InstructMining(rule)
    assert InstructMining(rule, indicators=[indicator]).indicators == (indicator,)


def test_named_refuses_two_of_one_name():
    with pytest.raises(CalibrationError, match="two datasets called 'a'"):
        named_sources(["x/a.json", "a=b.json"])
