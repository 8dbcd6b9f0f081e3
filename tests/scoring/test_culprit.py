"""Culprits: the row that breaks the work, found by halving and named."""

import pytest

from im_datasets.common.errors import IndicatorError, OutputError
from im_datasets.data.pairs import Pairs
from im_datasets.scoring.culprit import died_over, first_culprit, naming_the_row


@pytest.mark.parametrize("row", range(5, 12))
def test_first_culprit_is_any_row(row):
    assert first_culprit(range(5, 12), lambda rows: row in rows) == row


def test_first_culprit_of_several_is_the_first():
    assert first_culprit(range(10), lambda rows: 3 in rows or 7 in rows) == 3


def test_first_culprit_of_no_rows_is_none():
    assert first_culprit(range(0), lambda _: True) is None


def run(error, bad, *, together=False):
    """Work on six rows that breaks over one of them, or over it and all others together only."""
    rows = Pairs.of(["say it"] * 6, ["bad" if row == bad else "good" for row in range(6)])

    def work(pairs):
        if "bad" in pairs.responses and not (together and len(pairs) < 6):
            raise error

    with naming_the_row("Length", rows, 100, work):
        work(rows)


def test_naming_the_row_names_the_row_in_the_whole_dataset():
    with pytest.raises(IndicatorError, match=r"Length broke on row 104 \(ValueError: too odd\); mend or remove it"):
        run(ValueError("too  odd"), 4)


def test_naming_the_row_names_the_chunk_where_no_row_breaks_alone():
    broke = r"Length broke on rows 100 to 105 \(MemoryError: no message\); pass max_tokens"
    with pytest.raises(IndicatorError, match=broke):
        run(MemoryError(), 4, together=True)


@pytest.mark.parametrize("error", [OutputError("no room"), OSError("gone"), KeyboardInterrupt()])
def test_naming_the_row_leaves_what_is_no_fault_of_a_row(error):
    with pytest.raises(type(error)):
        run(error, 1)


def test_died_over_names_the_row_or_the_rows():
    one = died_over(3, range(5, 9), lambda rows: 7 in rows, "SIGKILL")
    assert "3 workers died over row 7 (SIGKILL); mend or remove it" in str(one)
    several = died_over(3, range(5, 9), lambda _: False, "SIGKILL")
    assert "died over rows 5 to 8 (SIGKILL); free memory or pass fewer workers" in str(several)
