"""The figures by which a column of scores is described, in the record, in the report and in its check."""

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.plain_types import LARGEST


def describe(values: NDArray[np.float64]) -> dict[str, float]:
    """Count, mean, standard deviation, minimum, median and maximum of the values that can be counted with.

    Args:
        values: A column; what is no number up to ``LARGEST``, and so was not scored, is left out.

    Returns:
        Name of the figure → the figure; ``count`` alone, 0, where no value is left. The standard deviation is the
        population's.

    >>> describe(np.array([1.0, 3.0, np.nan]))
    {'count': 2, 'mean': 2.0, 'std': 1.0, 'min': 1.0, 'median': 2.0, 'max': 3.0}
    """
    scored = values[np.abs(values) <= LARGEST]
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
