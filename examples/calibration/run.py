"""The experiment: a base model from scratch, calibration runs, a fitted rule, the comparison, and the size curve.

    python examples/calibration/run.py --data DIR --out experiment
    python examples/calibration/run.py --toy --out toy

Killed at any point, the same command goes on. Several processes may run it at once, each with a GPU or a core of its
own: start it in one until the base model is there, then in the others.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import base
import sources
from known_answer import KnownAnswer, known_answer

from im_datasets import LinearRule
from im_datasets.calibration.comparison import compare
from im_datasets.calibration.experiments.evaluation import load_evaluations
from im_datasets.calibration.experiments.experiment import Experiment
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures
from im_datasets.calibration.experiments.pool import load_pool
from im_datasets.calibration.fit.report import write_fit
from im_datasets.calibration.fit.rule_fit import Fit, fit_rule
from im_datasets.calibration.search import Sizes, search_size
from im_datasets.common.errors import CalibrationError
from im_datasets.indicators import IFD, Perplexity


@dataclass(frozen=True)
class Compared:
    """At which sizes rules are compared on an unseen source, against what; None is all that can be had."""

    sizes: Sequence[int]
    baselines: Sequence[str] | None = None


@dataclass(frozen=True)
class Plan:
    """All that the experiment's cost depends on."""

    shape: base.Shape
    training: Training
    mixing: Mixing
    compared: Mapping[str, Compared]
    seeds: Sequence[int]
    known: KnownAnswer
    sizes: Sizes


STRATA = ("im_quality", "im_output_length", "im_mtld", "im_similarity", "im_knn_6")

FULL = Plan(
    base.Shape(),
    Training(
        epochs=1,
        learning_rate=1e-4,
        batch_size=16,
        micro_batch_size=8,
        max_tokens=384,
        template="alpaca",
        group_by_length=True,
    ),
    Mixing(subsets=60, rows=1000, concentration=0.7, strata=STRATA),
    {"dolly": Compared((200, 600)), "code": Compared((600,), ("random", "length", "mtld"))},
    (0, 1, 2, 3, 4),
    KnownAnswer(Mixing(subsets=20, rows=500, concentration=0.7)),
    Sizes(low=128, high=2000, trials=8, points=4),
)
TOY = Plan(
    base.TOY,
    Training(epochs=1, learning_rate=1e-3, batch_size=8, max_tokens=96, template="plain", device="cpu"),
    Mixing(subsets=12, rows=12, concentration=0.7, strata=("im_quality",)),
    {"odd": Compared((16,))},
    (0, 1),
    KnownAnswer(Mixing(subsets=10, rows=12, concentration=0.7), rows=24, size=12, seeds=(0, 1)),
    Sizes(low=6, high=40, trials=3, points=2),
)


def main() -> None:
    """Run every stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the public datasets (see README.md)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment")
    parser.add_argument("--toy", action="store_true", help="example data, a model of a few thousand weights")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 on a CPU too (one that has AMX)")
    options = parser.parse_args()
    if options.toy == (options.data is not None):
        parser.error("pass either --data DIR or --toy")
    plan = TOY if options.toy else FULL
    run(options.data, options.out, replace(plan, training=replace(plan.training, bf16=options.bf16 or None)))


def run(data: Path | None, out: Path, plan: Plan) -> None:
    """Base model, calibration; a comparison on each unseen source, a size search on the first; the known answer."""
    files = sources.write_sources(data, out / "data")
    model = base.train_base(files.text, out / "base", plan.shape, bf16=plan.training.bf16)
    sets = load_evaluations([f"{name}={path}" for name, path in files.evaluation.items()])
    likelihoods = [indicator(model=model, template=plan.training.template) for indicator in (Perplexity, IFD)]

    def experiment(candidates: dict[str, Path], folder: Path, indicators: Sequence = ()) -> Experiment:
        pool = load_pool([f"{name}={path}" for name, path in candidates.items()], out, indicators=indicators)
        return Experiment.of(pool, sets, model, plan.training, folder)

    seen = experiment(files.seen, out / "calibration")
    runs = seen.run(draw_mixtures(seen.pool, plan.mixing))
    fits = [_fitted(runs, name, out) for name in files.evaluation]
    rules = {"fitted": fits[0].rule, "embedded": LinearRule.load("embedded")}
    for place, (name, comparison) in enumerate(plan.compared.items()):
        indicators = likelihoods if comparison.baselines is None else ()
        unseen = experiment({name: files.unseen[name]}, out / name, indicators)
        _compare(unseen, rules, comparison, plan.seeds, out / name)
        if not place:
            search_size(unseen, rules["fitted"], plan.sizes).save(out / name)
    print(json.dumps(known_answer(files.spare, plan.known, experiment, out / "known-answer"), indent=2))


def _fitted(runs: Sequence, evaluation: str, out: Path) -> Fit:
    fit = fit_rule(runs, name=f"fitted-{evaluation}", evaluation=evaluation)
    write_fit(fit, out / fit.rule.name)
    print(f"{fit.rule.name}: R² {fit.r_squared:.3f}, cross-validated {fit.cross_validation.r_squared:.3f}")
    return fit


def _compare(
    unseen: Experiment, rules: Mapping[str, LinearRule], comparison: Compared, seeds: Sequence[int], out: Path
) -> None:
    """The rows that each rule selects, against the same baselines."""
    for name, rule in rules.items():
        compared = compare(unseen, rule, sizes=comparison.sizes, seeds=seeds, baselines=comparison.baselines)
        compared.save(out / name)
        print(f"{out.name}, selected by {rule.name}\n{compared.table()}")


if __name__ == "__main__":
    try:
        main()
    except CalibrationError as error:
        raise SystemExit(f"error: {error}") from error
