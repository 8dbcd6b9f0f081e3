"""Plain values become the training, the pool and the experiment that they stand for, and refuse what is missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from im_datasets.calibration.experiments import evaluation, pool
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.experiments.request import ExperimentRequest
from im_datasets.common.errors import CalibrationError

EXAMPLES = Path(__file__).parents[3] / "examples" / "data"


def test_training_of_the_defaults_is_the_default_training():
    assert ExperimentRequest().training() == Training()


def test_training_takes_the_settings():
    training = ExperimentRequest(lora=True, lora_rank=4, bf16=True, epochs=1, template="plain", device="cpu").training()
    expected = Training(method="lora", lora_rank=4, bf16=True, epochs=1, template="plain", device="cpu")
    assert training == expected


def test_pool_scores_the_columns_whose_models_were_named(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(pool, "load_pool", lambda data, folder, **settings: asked.update(settings))
    ExperimentRequest(perplexity_model="m", ifd_model="n", device="cpu", limit=7).pool(["a.jsonl"], tmp_path)
    perplexity, ifd = asked["indicators"]
    assert (type(perplexity).__name__, perplexity.model, perplexity.device) == ("Perplexity", "m", "cpu")
    assert (type(ifd).__name__, ifd.model, ifd.device) == ("IFD", "n", "cpu")
    assert (asked["rule"], asked["limit"]) == ("embedded", 7)


def test_experiment_refuses_what_is_missing_before_a_pool_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "load_pool", lambda *args, **settings: pytest.fail("read"))
    request = ExperimentRequest(base_model="m")
    with pytest.raises(CalibrationError, match="finetuning needs candidate DATA and --base-model MODEL"):
        request.experiment([], tmp_path)
    with pytest.raises(CalibrationError, match="finetuning needs candidate DATA and --base-model MODEL"):
        ExperimentRequest().experiment(["a.jsonl"], tmp_path)
    with pytest.raises(CalibrationError, match="no evaluation set; pass --evaluation DATA"):
        request.experiment(["a.jsonl"], tmp_path)
    with pytest.raises(CalibrationError, match=r"epochs=0; must be above 0"):
        replace(request, epochs=0).experiment(["a.jsonl"], tmp_path)


def test_experiment_holds_what_was_asked(base_model, pool, monkeypatch, tmp_path):
    limits = []
    sets = evaluation.load_evaluations
    monkeypatch.setattr(
        evaluation, "load_evaluations", lambda data, limit: limits.append(limit) or sets(data, limit=limit)
    )
    monkeypatch.setattr(ExperimentRequest, "pool", lambda self, data, folder, rule: pool)
    request = ExperimentRequest(
        base_model=base_model,
        evaluation=[f"held={EXAMPLES / 'evaluation.jsonl'}"],
        evaluation_limit=3,
        device="cpu",
        keep_models=True,
    )
    experiment = request.experiment(["a.jsonl"], tmp_path)
    assert limits == [3]
    assert [each.name for each in experiment.evaluations] == ["held"]
    assert (experiment.base.model, experiment.folder, experiment.keep_models) == (base_model, tmp_path, True)
    assert experiment.training == request.training().on("cpu")
