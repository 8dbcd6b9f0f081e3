"""The one table of the columns that are written, from which README, cards and metric modules are rendered."""

import pytest

from im_datasets.indicators.score_columns import COLUMNS, output_table


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_output_table_says_what_the_table_of_columns_says(name):
    column = COLUMNS[name]
    line = output_table([name]).splitlines()[-1]
    assert line.startswith(f"| `{name}` | {column.meaning} | {column.unit} | ")
    assert line.endswith(f" | {column.direction} |")


def test_output_table_writes_bounds_for_people():
    assert "| −1 to 1 |" in output_table(["im_similarity"])
    assert "| −∞ to ∞ |" in output_table(["im_quality"])
