"""Rows of which half were spoiled on purpose: does a rule fitted on finetuning runs find them, and does it pay?

Half of the rows get another row's response, or their own one cut in the middle. A rule is fitted on mixtures of intact
and spoiled rows; then, on other rows spoiled in the same ways, the rule's score is set against the truth, and training
on the rows that it selects against training on random ones.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from sources import write

from im_datasets.calibration.comparison import compare
from im_datasets.calibration.experiments.experiment import Experiment
from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures
from im_datasets.calibration.fit.report import write_fit
from im_datasets.calibration.fit.rule_fit import fit_rule
from im_datasets.report.statistics import superiority

Rows = Sequence[dict[str, str]]
INTACT, SPOILED = "intact", "spoiled"


@dataclass(frozen=True)
class KnownAnswer:
    """What the stage costs."""

    mixing: Mixing
    rows: int = 1000
    size: int = 500
    seeds: Sequence[int] = (0, 1, 2, 3, 4)


def spoil(rows: Rows, seed: int = 0) -> list[dict[str, str]]:
    """Every other row with another row's response, the others cut to between 20 and 60 per cent of their words."""
    random = Random(seed)
    shift = random.randrange(1, len(rows))
    spoiled = []
    for place, row in enumerate(rows):
        words = row["response"].split(" ")
        if place % 2 and len(words) >= 5:
            response = " ".join(words[: max(1, int(len(words) * random.uniform(0.2, 0.6)))])
        else:
            response = rows[(place + shift) % len(rows)]["response"]
        spoiled.append({**row, "response": response})
    return spoiled


def known_answer(
    rows: Rows, plan: KnownAnswer, experiment: Callable[[dict[str, Path], Path], Experiment], out: Path
) -> dict[str, Any]:
    """Fit on half of the rows, judge on the other half.

    Args:
        rows: Intact rows, four times ``plan.rows`` of them.
        plan: What to spend.
        experiment: From candidates and a folder to an experiment.
        out: Folder of the stage.

    Returns:
        The fitted rule's terms, its AUC of spoiled over intact rows on both halves, and the comparison.
    """
    quarters = [rows[start : start + plan.rows] for start in range(0, 4 * plan.rows, plan.rows)]
    seen = {
        INTACT: write(out / "data" / "intact.jsonl", quarters[0]),
        SPOILED: write(out / "data" / "spoiled.jsonl", spoil(quarters[1])),
    }
    fitting = experiment(seen, out)
    runs = fitting.run(draw_mixtures(fitting.pool, plan.mixing))
    fit = fit_rule(runs, name="known-answer", evaluation=fitting.evaluations[0].name)
    write_fit(fit, out / "fitted")
    held = {
        INTACT: write(out / "data" / "held-intact.jsonl", quarters[2]),
        SPOILED: write(out / "data" / "held-spoiled.jsonl", spoil(quarters[3], seed=1)),
    }
    judged = experiment(held, out / "held")
    compared = compare(judged, fit.rule, sizes=(plan.size,), seeds=plan.seeds, baselines=("random",))
    compared.save(out / "held")
    answer = {
        "terms": {term.column: term.coefficient for term in fit.rule.terms},
        "r_squared": fit.r_squared,
        "cross_validated_r_squared": fit.cross_validation.r_squared,
        "auc_fitting_rows": auc_of_spoiled(fitting, fit.rule),
        "auc_held_out_rows": auc_of_spoiled(judged, fit.rule),
        "spoiled_among_selected": judged.pool.composition(judged.pool.ranked(fit.rule)[: plan.size])[SPOILED],
        "selected": plan.size,
    }
    (out / "known_answer.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    return answer


def auc_of_spoiled(experiment: Experiment, rule: Any) -> float:
    """How often a spoiled row has a higher predicted loss than an intact one, ties counted half."""
    pool = experiment.pool
    predicted = np.asarray(rule.predict(pool.scores))
    spoiled = pool.origin == pool.names.index(SPOILED)
    return superiority(predicted[spoiled], predicted[~spoiled])
