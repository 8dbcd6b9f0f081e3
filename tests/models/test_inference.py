"""The runner: distinct items once, stored ones not at all, NaN for what is not finite, memory that runs out."""

import numpy as np
import pytest
import torch

from im_datasets.models import inference
from im_datasets.models.batching import TokenBudget, Tokens
from im_datasets.models.inference import BatchRunner, compute
from im_datasets.models.meter import metering
from im_datasets.models.value_store import using_store

SPACE = {"model": "letters", "version": "1"}


class Letters:
    """A runner over letters: an item's length, and its sum of letters; counts what it runs."""

    def __init__(self, limit: int = 100) -> None:
        self.limit, self.loads, self.ran = limit, 0, 0

    def load(self) -> BatchRunner:
        self.loads += 1
        return BatchRunner(self.tokenize, self.forward, 2, 0, "cpu", TokenBudget(256))

    def tokenize(self, items) -> list[Tokens]:
        self.ran += len(items)
        return [Tokens([ord(c) for c in item[: self.limit]], truncated=len(item) > self.limit) for item in items]

    def forward(self, inputs) -> torch.Tensor:
        sums = torch.where(inputs.mask == 1, inputs.ids, 0).sum(1)
        return torch.stack([inputs.lengths, sums], dim=1).float()


ITEMS = ["abc", "z", "abc", "hello there", "z" * 30]
VALUES = [[len(item), sum(map(ord, item))] for item in ITEMS]


def test_compute_runs_distinct_items_once_in_the_order_of_the_items():
    letters = Letters()
    assert compute(ITEMS, space=SPACE, load=letters.load).values.tolist() == VALUES
    assert letters.ran == 4


def test_compute_of_nothing_loads_nothing():
    letters = Letters()
    assert len(compute([], space=SPACE, load=letters.load).values) == 0
    assert letters.loads == 0


def test_compute_takes_from_the_store_what_is_there_and_then_loads_nothing(tmp_path):
    with using_store(tmp_path):
        letters = Letters(limit=10)
        first = compute(ITEMS, space=SPACE, load=letters.load)
        with metering() as meter:
            again = compute([*ITEMS[::-1], "new"], space=SPACE, load=letters.load)
        assert again.values[:5].tolist() == first.values[::-1].tolist()
        assert again.truncated.tolist() == [True, True, False, False, False, False]
        assert (letters.ran, meter.reused, meter.computed) == (5, 4, 1)
        compute(ITEMS, space=SPACE, load=lambda: pytest.fail("loaded"))


@pytest.mark.parametrize("space", [{"model": "letters", "version": "2"}, {"model": "other", "version": "1"}, {}])
def test_compute_takes_nothing_of_other_settings(tmp_path, space):
    with using_store(tmp_path):
        compute(ITEMS, space=SPACE, load=Letters().load)
        other = Letters()
        compute(ITEMS, space=space, load=other.load)
        assert other.ran == 4


def test_compute_stores_what_ended_before_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "FLUSH_SECONDS", 0.0)
    letters = Letters()

    class Failing(Letters):
        def forward(self, inputs):
            if inputs.ids.shape[1] < 16:
                raise KeyboardInterrupt
            return super().forward(inputs)

    items = ["long " * 20, "short"]
    with using_store(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            compute(items, space=SPACE, load=Failing().load)
        compute(items, space=SPACE, load=letters.load)
    assert letters.ran == 1


def test_compute_makes_nan_of_what_is_not_finite_and_stores_none_of_it(tmp_path):
    class Wild(Letters):
        def forward(self, inputs):
            values = super().forward(inputs)
            return torch.where(values[:, :1] == 1, torch.tensor([float("inf"), float("nan")]), values)

    with using_store(tmp_path):
        values = compute(ITEMS, space=SPACE, load=Wild().load).values
        assert np.isnan(values[1]).all()
        assert values[[0, 2, 3, 4]].tolist() == [VALUES[i] for i in (0, 2, 3, 4)]
        letters = Letters()
        assert compute(ITEMS, space=SPACE, load=letters.load).values.tolist() == VALUES
        assert letters.ran == 1


def test_compute_keys_tell_texts_from_tuples_and_take_broken_text(tmp_path):
    assert len(set(inference._keys(["ab", ("a", "b"), ("ab",), ("a", "b", ""), "\ud800"], SPACE))) == 5


def test_run_halves_on_what_an_allocator_says_and_raises_the_rest():
    class Small(Letters):
        def forward(self, inputs):
            if len(inputs.ids) > 4:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            return super().forward(inputs)

    texts = [f"{i:05d}" for i in range(50)]
    assert compute(texts, space=SPACE, load=Small().load).values[:, 0].tolist() == [5] * 50

    class Broken(Letters):
        def forward(self, inputs):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        compute(texts, space=SPACE, load=Broken().load)


def test_a_store_that_breaks_does_not_break_the_run(tmp_path):
    (tmp_path / "scores.sqlite").mkdir()
    with using_store(tmp_path), pytest.warns(UserWarning, match="cannot be used"):
        assert compute(ITEMS, space=SPACE, load=Letters().load).values.tolist() == VALUES
