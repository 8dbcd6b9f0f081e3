"""Values → the text that a person reads, on pages, cards and terminals alike."""

import pytest

from im_datasets.report.formatting import format_number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.5, "−0.5000"),
        (12345.6, "12,346"),
        (3.0, "3"),
        (0.00001234, "1.234e−05"),
        (float("inf"), "–"),
        (None, "–"),
    ],
)
def test_format_number_is_readable(value, shown):
    assert format_number(value) == shown
