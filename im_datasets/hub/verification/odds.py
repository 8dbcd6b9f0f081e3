"""What a random sample could have missed, in numbers that a person can weigh."""

from math import ceil, comb

SHARE = 0.05
"""The forgery whose odds are told: this share of the rows."""


def chance_of_seeing(rows: int, drawn: int, forged: int) -> float:
    """How likely a sample holds at least one forged row (hypergeometric, exact).

    Args:
        rows: How many there are.
        drawn: How many of them were looked at, each once.
        forged: How many are forged.

    Returns:
        0..1.

    Example:
        >>> chance_of_seeing(4, 2, 1), chance_of_seeing(4, 4, 1), chance_of_seeing(4, 0, 1)
        (0.5, 1.0, 0.0)
    """
    return 1 - comb(rows - forged, drawn) / comb(rows, drawn)


def tell_odds(rows: int, drawn: int, side: str) -> str:
    """One side of a sample and what it could have missed.

    Example:
        >>> tell_odds(2000, 32, "kept")
        '32 of 2,000 kept rows: a forgery of 5 % of them would have been seen with a chance of 81 %'
    """
    forged = ceil(SHARE * rows)
    chance = chance_of_seeing(rows, drawn, forged)
    # Nothing is certain before every sample would show it.
    percent = 100 if chance == 1 else min(99, round(100 * chance))
    share = f"{SHARE:.0%}".replace("%", " %")
    seen = f"a forgery of {share} of them would have been seen with a chance of {percent} %"
    return f"{drawn:,} of {rows:,} {side} rows: {seen}"
