"""Runs whose log loss is a known linear function of their mean indicators, plus noise."""

import numpy as np

from im_datasets.calibration.runs import Run

TRUTH = {"im_reward": -0.05, "im_coherence": -0.6, "im_mtld": 0.002}
INTERCEPT = 0.4
CENTRES = {
    "im_reward": (-1.0, 1.0),
    "im_coherence": (0.85, 0.05),
    "im_mtld": (60.0, 8.0),
    "im_quality": (0.2, 0.3),
    "im_output_length": (150.0, 40.0),
    "im_naturalness": (0.8, 0.04),
}


def make_means(n, seed=0, columns=tuple(CENTRES)):
    generator = np.random.default_rng([seed, 7])
    return {c: CENTRES[c][0] + CENTRES[c][1] * generator.normal(size=n) for c in columns}


def make_runs(n=60, *, noise=0.03, seed=0, columns=("im_reward", "im_coherence", "im_mtld"), means=None, **fields):
    """n runs; columns beyond those of ``TRUTH`` have nothing to do with the loss."""
    means = make_means(n, seed, columns) if means is None else means
    generator = np.random.default_rng([seed, 8])
    log_loss = INTERCEPT + sum((TRUTH.get(c, 0.0) * v for c, v in means.items()), noise * generator.normal(size=n))
    return [
        Run(
            f"r{i:03}",
            {c: float(v[i]) for c, v in means.items()},
            {"self-instruct": float(np.exp(log_loss[i]))},
            **{"rows": 1000, "base_model": {"id": "tiny", "revision": "0" * 8}, "training": {"epochs": 3}, **fields},
        )
        for i in range(n)
    ]


def alike(n=60, gap=0.0008, seed=0):
    """Means in which understandability is naturalness and a little noise, as in the paper."""
    means = make_means(n, seed, ("im_reward", "im_coherence", "im_naturalness"))
    generator = np.random.default_rng([seed, 9])
    return means | {"im_understandability": means["im_naturalness"] + gap * generator.normal(size=n)}
