"""What some work came to: seconds, tokens read, texts cut, values computed or found in the store."""

import pytest

from im_datasets.models.meter import count, metering, report


def test_metering_ends_with_its_block_even_after_an_error():
    outer: list[int] = []
    inner: list[int] = []
    with metering(lambda done, total: outer.append(done)) as meter:
        with pytest.raises(KeyError), metering(lambda done, total: [inner.append(done), {}[done]]):
            report(1, 3)
        report(2, 3)
        count(truncated=2)
    report(3, 3)
    count(truncated=1)
    assert (outer, inner, meter.truncated) == ([2], [1], 2)
