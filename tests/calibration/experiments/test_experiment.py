"""Runs are made once, whoever is killed and however many processes share the table."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from im_datasets.calibration.experiments import experiment as module
from im_datasets.calibration.experiments.evaluation import Evaluation, Losses
from im_datasets.calibration.experiments.experiment import TABLE, Experiment, Job, complete
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.runs import Run, read_runs
from im_datasets.data.pairs import Pairs

JOBS = {f"job-{number}": number for number in range(8)}
FORK = multiprocessing.get_context("fork")


def fake(folder, seconds=0.0):
    def make(name, number):
        (folder / f"{name}-{os.getpid()}").touch()
        time.sleep(seconds)
        return Run(name, {"im_mtld": float(number)}, {"e": float(number)})

    return make


def made(folder):
    return sorted(path.name.rpartition("-")[0] for path in folder.glob("job-*"))


def test_complete_makes_what_is_missing_and_nothing_else(tmp_path):
    first = complete(dict(list(JOBS.items())[:3]), fake(tmp_path), tmp_path / TABLE)
    known = []
    runs = complete(JOBS, fake(tmp_path), tmp_path / TABLE, known.append)
    assert list(first) == ["job-0", "job-1", "job-2"]
    assert {name: run.losses["e"] for name, run in runs.items()} == {name: float(n) for name, n in JOBS.items()}
    assert made(tmp_path) == sorted(JOBS)
    assert known == sorted(known)
    assert (known[0], known[-1]) == (3, 8)


def test_complete_keeps_what_was_made_before_a_failure(tmp_path):
    def failing(name, number):
        if number == 2:
            raise RuntimeError("out of memory")
        return fake(tmp_path)(name, number)

    with pytest.raises(RuntimeError, match="out of memory"):
        complete(JOBS, failing, tmp_path / TABLE)
    assert len(read_runs(tmp_path / TABLE).runs) == 2
    assert len(complete(JOBS, fake(tmp_path), tmp_path / TABLE)) == 8
    assert made(tmp_path) == sorted(JOBS)


def test_complete_by_several_processes_makes_each_run_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    others = [FORK.Process(target=complete, args=(JOBS, fake(tmp_path, 0.03), tmp_path / TABLE)) for _ in range(3)]
    for other in others:
        other.start()
    runs = complete(JOBS, fake(tmp_path, 0.03), tmp_path / TABLE)
    for other in others:
        other.join(timeout=30)
    assert set(runs) == set(JOBS)
    assert made(tmp_path) == sorted(JOBS)
    assert [other.exitcode for other in others] == [0, 0, 0]


def test_complete_takes_over_what_a_killed_process_had_claimed(tmp_path):
    other = FORK.Process(target=complete, args=(JOBS, fake(tmp_path, 60), tmp_path / TABLE))
    other.start()
    while not made(tmp_path):
        time.sleep(0.01)
    os.kill(other.pid, signal.SIGKILL)
    other.join(timeout=30)
    assert set(complete(JOBS, fake(tmp_path), tmp_path / TABLE)) == set(JOBS)


@pytest.fixture
def experiment(pool, base_model, folder):
    training = Training(epochs=1, learning_rate=1e-3, batch_size=8, max_tokens=64, template="plain", device="cpu")
    held = Evaluation("held", Pairs.of(["Write kiwi 2 times.", "Write apple 1 times."], ["kiwi kiwi", "apple"]))
    return Experiment.of(pool, [held], base_model, training, folder, progress=False)


def test_experiment_run_fills_the_table(experiment, folder, monkeypatch):
    jobs = [Job("compare", "some", np.arange(8)), Job("compare", "base", np.arange(0))]
    trained, base = experiment.run(jobs)
    examples = trained.details["examples"]["held"]
    assert trained.losses["held"] == pytest.approx(sum(examples["nats"]) / sum(examples["tokens"]))
    assert trained.losses["held"] < base.losses["held"]
    assert trained.means == experiment.pool.means(np.arange(8))
    assert (trained.rows, trained.seed, trained.subset["sources"]) == (8, 0, {"fruits": 8, "beasts": 0})
    assert base.means == {}
    assert trained.training["bf16"] is False
    assert trained.evaluations == {"held": experiment.evaluations[0].digest}
    assert [run.run for run in read_runs(folder / TABLE).runs] == [trained.run, base.run]
    monkeypatch.setattr(module, "finetune", lambda *args, **settings: pytest.fail("trained again"))
    assert [run.losses for run in experiment.run(jobs)] == [trained.losses, base.losses]
    assert not (folder / "models").exists()


def test_experiment_leaves_out_candidates_of_the_evaluation_set(experiment, pool):
    texts = experiment.pool.pairs(np.arange(len(experiment.pool))).instructions
    assert "Write apple 1 times." in pool.pairs(np.arange(len(pool))).instructions
    assert "Write apple 1 times." not in texts


def test_identify_tells_all_apart_that_numbers_depend_on(experiment, pool, base_model, folder):
    longer = Training(epochs=2, learning_rate=1e-3, batch_size=8, max_tokens=64, template="plain", device="cpu")
    other = Experiment.of(pool, experiment.evaluations, base_model, longer, folder)
    unseen = Experiment.of(pool, [Evaluation("held", Pairs.of(["a"], ["b"]))], base_model, experiment.training, folder)
    job = Job("compare", "some", np.arange(8))
    ids = {
        experiment.identify(job),
        experiment.identify(Job("compare", "some", np.arange(8), seed=1)),
        experiment.identify(Job("compare", "some", np.arange(7))),
        experiment.identify(Job("search", "some", np.arange(8))),
        other.identify(job),
        unseen.identify(job),
    }
    assert len(ids) == 6


def test_identify_tells_versions_of_the_training_apart(experiment, monkeypatch):
    job = Job("compare", "some", np.arange(8))
    before = experiment.identify(job)
    monkeypatch.setattr(module, "VERSION", "next")
    assert experiment.identify(job) != before


def test_experiment_records_a_diverged_training_as_not_measured(pool, base_model, folder, experiment, monkeypatch):
    diverged = Losses(np.array([np.inf, 1.0]), np.array([3, 3]))
    monkeypatch.setattr(module, "evaluate_losses", lambda *args, **settings: diverged)
    fresh = Experiment.of(pool, experiment.evaluations, base_model, experiment.training, folder, progress=False)
    fresh.run([Job("compare", "some", np.arange(4))])
    (run,) = read_runs(folder / TABLE).runs
    assert np.isnan(list(run.losses.values())).all()
    assert run.details["examples"]["held"]["nats"] == [None, 1.0]


def test_experiment_keeps_models_when_asked(pool, base_model, folder, experiment):
    kept = Experiment.of(pool, experiment.evaluations, base_model, experiment.training, folder, keep_models=True)
    (run,) = kept.run([Job("compare", "some", np.arange(4))])
    assert (folder / "models" / run.run / "model.safetensors").is_file()


def test_identify_tells_bfloat16_from_float32_and_no_device_from_another(pool, base_model, folder, monkeypatch):
    monkeypatch.setattr("im_datasets.models.checkpoints.choose_device", lambda device: device)
    monkeypatch.setattr("im_datasets.calibration.experiments.finetuning.choose_device", lambda device: device)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)

    def on(device, bf16=None):
        training = Training(template="plain", device=device, bf16=bf16)
        return Experiment.of(pool, [], base_model, training, folder)

    job = Job("compare", "some", np.arange(8))
    cpu, card = on("cpu"), on("cuda")
    assert (cpu.training.bf16, card.training.bf16) == (False, True)
    assert cpu.identify(job) != card.identify(job)
    assert cpu.identify(job) == on("cuda", bf16=False).identify(job)
    assert card.identify(job) == on("cuda:1").identify(job) == on("cpu", bf16=True).identify(job)
