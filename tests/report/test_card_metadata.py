"""The front matter of a card: what the Hub lists and searches, and which files `datasets` loads."""

import pytest

from im_datasets.report.card_metadata import _size_category


@pytest.mark.parametrize(
    ("kept", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (10**12 - 1, "100B<n<1T"),
        (10**13, "n>1T"),
    ],
)
def test_size_category_is_the_hubs(kept, category):
    assert _size_category(kept) == category
