"""The figures by which a column of scores is described, in the record, in the report and in its check."""

import numpy as np
from numpy.typing import NDArray


def describe(values: NDArray[np.float64]) -> dict[str, float]:
    """Count, mean, standard deviation, minimum, median and maximum of the values that are finite.

    Args:
        values: A column; NaN and infinities, which mark what could not be scored, are left out.

    Returns:
        Name of the figure → the figure; ``count`` alone, 0, where no value is finite. The standard deviation is the
        population's.

    >>> describe(np.array([1.0, 3.0, np.nan]))
    {'count': 2, 'mean': 2.0, 'std': 1.0, 'min': 1.0, 'median': 2.0, 'max': 3.0}
    """
    scored = values[np.isfinite(values)]
    if not len(scored):
        return {"count": 0}
    return {
        "count": len(scored),
        "mean": float(scored.mean()),
        "std": float(scored.std()),
        "min": float(scored.min()),
        "median": float(np.median(scored)),
        "max": float(scored.max()),
    }
