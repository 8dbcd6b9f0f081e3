"""Which runs are wanted, which of them are there, and making the missing ones, by any number of processes.

A job is known by all that its numbers depend on. What is in the table is never made again; a job is claimed by a
lock that the operating system lifts when its process ends, however it ends. What a run does is handed in.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps
from math import isfinite
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from im_datasets.calibration.experiments.evaluation import Evaluation, evaluate_losses
from im_datasets.calibration.experiments.finetuning import VERSION, Training, base_checkpoint, finetune, save_model
from im_datasets.calibration.experiments.pool import Pool, PoolRows
from im_datasets.calibration.runs import Run, append_run, read_runs
from im_datasets.models.checkpoints import Checkpoint

TABLE = "runs.jsonl"
"""The table's name in an experiment's folder."""

SELECTED, RANDOM = "selected", "random"
"""Labels of jobs: the first rows by a rule, and as many drawn alike."""

POLL_SECONDS = 1.0
"""How often a process that has nothing left to do looks whether the others are done."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run that is wanted.

    Attributes:
        kind: What for, one of ``runs.KINDS``.
        label: What its rows are, in a word; part of the id.
        rows: The candidates to train on; none evaluates the base model as it is.
        seed: Of the training.
        subset: What the rows are, as plain data.
    """

    kind: str
    label: str
    rows: PoolRows
    seed: int = 0
    subset: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Experiment:
    """A base model, a pool to train on, and evaluation sets: what turns jobs into runs.

    Attributes:
        pool: The candidates.
        evaluations: What is measured.
        base: The base model.
        training: How it is finetuned, ``bf16`` as it comes to on the base model's device.
        folder: Where the table of runs is, and what else an experiment leaves.
        keep_models: Whether each finetuned model is written to ``models/`` in the folder.
        progress: Whether a progress bar is shown.
    """

    pool: Pool
    evaluations: Sequence[Evaluation]
    base: Checkpoint
    training: Training
    folder: Path
    keep_models: bool = False
    progress: bool = True

    @classmethod
    def of(
        cls,
        pool: Pool,
        evaluations: Sequence[Evaluation],
        base_model: str,
        training: Training,
        folder: str | Path,
        *,
        revision: str | None = None,
        keep_models: bool = False,
        progress: bool = True,
    ) -> "Experiment":
        """An experiment whose candidates do not repeat the instructions of its evaluation sets.

        Raises:
            ModelError: The base model cannot be had.
        """
        # A candidate that repeats a test instruction would teach the model its answer.
        clean = pool.without([text for evaluation in evaluations for text in evaluation.pairs.instructions])
        base = base_checkpoint(base_model, training, revision=revision).resolve()
        training = training.on(str(base.device))
        return cls(clean, tuple(evaluations), base, training, Path(folder), keep_models, progress)

    def run(self, jobs: Sequence[Job]) -> list[Run]:
        """The runs of some jobs, in their order; those that the table lacks are made now.

        Raises:
            CalibrationError: The table cannot be read.
            ModelError: The base model cannot be had, is not causal, or lacks weights.
        """
        by_id = {self.identify(job): job for job in jobs}
        is_complete = len(finished_runs(self.folder / TABLE, by_id)) == len(by_id)
        with tqdm(total=len(by_id), desc="Finetuning", unit=" runs", disable=is_complete or not self.progress) as bar:
            runs = complete(by_id, self._make, self.folder / TABLE, lambda finished: bar.update(finished - bar.n))
        return [runs[self.identify(job)] for job in jobs]

    def identify(self, job: Job) -> str:
        """A job's id: what it is in words, and a digest of all that its numbers depend on."""
        parts = [
            self.pool.digest(job.rows),
            job.seed,
            self.base.weights(),
            VERSION,
            self.training.to_dict(),
            [[evaluation.name, evaluation.digest] for evaluation in self.evaluations],
        ]
        digest = sha256(dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{job.kind}-{job.label}-n{len(job.rows)}-s{job.seed}-{digest}"

    def _make(self, name: str, job: Job) -> Run:
        start = time.perf_counter()
        if len(job.rows):
            model = finetune(self.base, self.pool.pairs(job.rows), self.training, seed=job.seed)
        else:
            model = self.base.load_anew()
        trained = time.perf_counter()
        template, limit = self.training.template, self.training.max_tokens
        measured = {e.name: evaluate_losses(model, e, template=template, max_tokens=limit) for e in self.evaluations}
        if self.keep_models:
            save_model(model, self.folder / "models" / name)
        return Run(
            run=name,
            kind=job.kind,
            subset={"label": job.label, "sources": self.pool.composition(job.rows), **job.subset},
            seed=job.seed,
            rows=len(job.rows),
            means=self.pool.means(job.rows) if len(job.rows) else {},
            losses={name: losses.mean for name, losses in measured.items()},
            base_model=self.base.describe(),
            training=self.training.to_dict(),
            indicators=self.pool.indicators,
            evaluations={evaluation.name: evaluation.digest for evaluation in self.evaluations},
            seconds=round(time.perf_counter() - start, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            details={
                "training_seconds": round(trained - start, 3),
                "examples": {
                    name: {
                        # A millionth of a nat keeps the table small; ``differences.TIE`` allows for it.
                        "nats": [round(nats, 6) if isfinite(nats) else None for nats in losses.sums.tolist()],
                        "tokens": losses.tokens.tolist(),
                        "truncated": losses.truncated,
                    }
                    for name, losses in measured.items()
                },
            },
        )


def complete(
    jobs: Mapping[str, Any],
    make: Callable[[str, Any], Run],
    table: Path,
    on_finished: Callable[[int], object] = int,
) -> dict[str, Run]:
    """Make the runs that a table lacks; several processes may do so at once.

    Args:
        jobs: Id → what to do.
        make: From an id and what to do to the run.
        table: Where runs are read and added.
        on_finished: Told how many of the jobs are in the table, whoever made them.

    Returns:
        Id → run, of every job: those made here, before, and meanwhile by others.

    Raises:
        CalibrationError: The table cannot be read.
    """
    while True:
        finished = finished_runs(table, jobs)
        on_finished(len(finished))
        missing = [name for name in jobs if name not in finished]
        if not missing:
            return finished
        others_are_busy = True
        for name in missing:
            with _claimed(table, name) as is_claimed:
                # Another process may have finished it and lifted its claim since the table was read.
                if not is_claimed or name in finished_runs(table, jobs):
                    continue
                append_run(table, make(name, jobs[name]))
                others_are_busy = False
            on_finished(len(finished_runs(table, jobs)))
        if others_are_busy:
            time.sleep(POLL_SECONDS)


def finished_runs(table: Path, jobs: Mapping[str, Any]) -> dict[str, Run]:
    """The runs of some jobs that are in a table; none where there is no table yet.

    Raises:
        CalibrationError: The table cannot be read.
    """
    if not table.is_file():
        return {}
    return {run.run: run for run in read_runs(table).runs if run.run in jobs}


@contextmanager
def _claimed(table: Path, name: str) -> Iterator[bool]:
    """Whether this process alone may make a run, while the block lasts."""
    from filelock import FileLock, Timeout

    # A digest in place of the name, which holds a label that need not be fit for a file.
    lock = FileLock(table.parent / ".claims" / f"{sha256(name.encode()).hexdigest()[:24]}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
