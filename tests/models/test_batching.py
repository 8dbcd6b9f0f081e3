"""Batches: every sequence once, within the budget, in row order, metered, and with memory that runs out."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.models import batching
from im_datasets.models.batching import KERNEL_ROWS, Batcher, TokenBatch, TokenBudget, Tokens, padded_length
from im_datasets.models.meter import metering

PAD = 99

sequences = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=40), max_size=60)
budgets = st.integers(1, 300)


def tokenize(items) -> list[Tokens]:
    return [Tokens(item) for item in items]


def first_and_length(batch: TokenBatch) -> np.ndarray:
    """A forward that tells its sequences apart: first id, number of ids, sum of ids."""
    ids = np.where(batch.mask == 1, batch.ids, 0)
    return np.stack([batch.ids[:, 0], batch.lengths, ids.sum(1)], axis=1).astype(np.float32)


def batcher(budget: int = 64, **settings) -> Batcher:
    return Batcher(PAD, TokenBudget(budget), **settings)


def batches_of(texts, budget: int = 64, **settings) -> list[TokenBatch]:
    return list(batcher(budget, **settings).batches([list(enumerate(tokenize(texts)))]))


def run(texts, forward=first_and_length, budget: int = 64, **settings) -> np.ndarray:
    return batcher(budget, **settings).run(texts, tokenize, forward, width=3).values


@given(sequences, budgets)
def test_batches_hold_every_sequence_once_as_it_was(texts, budget):
    batches = batches_of(texts, budget)
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(texts)))
    for batch in batches:
        for place, row in enumerate(batch.rows):
            length = len(texts[row])
            assert batch.ids[place, :length].tolist() == texts[row]
            assert (batch.ids[place, length:] == PAD).all()
            assert batch.mask[place].tolist() == [1] * length + [0] * (batch.ids.shape[1] - length)


@given(sequences, budgets, st.sampled_from([(None, 16), (43, 16), (None, 1)]))
def test_batches_respect_the_budget_and_the_row_multiple(texts, budget, shape):
    longest, rows = shape
    for batch in batches_of(texts, budget, longest=longest, kernel_rows=rows):
        number, length = batch.ids.shape
        fewest = next(n for n in range(1, rows + 1) if n * length % rows == 0)
        assert all(length == padded_length(len(texts[row]), longest) for row in batch.rows)
        assert batch.ids.size % rows == 0
        assert batch.ids.size <= budget or number == fewest
        assert 0 <= number - len(batch.rows) < fewest


@given(st.integers(1, 2000), st.integers(0, 300))
def test_padded_length_adds_little_and_stays_within_the_positions(tokens, room):
    padded = padded_length(tokens)
    assert padded % (4 if tokens <= 48 else 8 if tokens <= 128 else 16) == 0
    assert 0 <= padded - tokens < min(16, max(4, tokens / 6))
    assert padded_length(padded) == padded
    assert padded_length(tokens, tokens + room) == min(padded, tokens + room)


def test_batches_default_to_what_a_cpu_needs():
    assert (batcher().longest, batcher().kernel_rows) == (None, KERNEL_ROWS) == (None, 16)


def test_batches_fill_up_with_copies_of_the_first():
    (batch,) = batches_of([[1, 2, 3], [4]])
    assert batch.rows.tolist() == [0, 1]
    assert batch.ids.tolist() == [[1, 2, 3, PAD], [4, PAD, PAD, PAD], [1, 2, 3, PAD], [1, 2, 3, PAD]]


def test_batches_keep_groups_apart_and_starts_with_their_sequences():
    known = [Tokens([1, 2, 3], 1, 0), Tokens([4, 5], 2, 1), Tokens([6], 0, 0)]
    found = {batch.group: batch for batch in batcher().batches([list(enumerate(known))])}
    assert {group: batch.rows.tolist() for group, batch in found.items()} == {0: [0, 2], 1: [1]}
    assert found[0].starts.tolist() == [1, 0, 1, 1]


@given(sequences, budgets, st.integers(1, 3))
def test_run_restores_row_order(texts, budget, workers):
    expected = [[text[0], len(text), sum(text)] for text in texts]
    assert run(texts, budget=budget, workers=workers).tolist() == expected


def test_run_tokenises_ahead_in_slices(monkeypatch):
    monkeypatch.setattr(batching, "SLICE", 4)
    sizes, threads = [], set()

    def noted(items):
        sizes.append(len(items))
        threads.add(threading.get_ident())
        return tokenize(items)

    texts = [[i % 7] * (1 + i % 5) for i in range(10)]
    values = batcher().run(texts, noted, first_and_length, width=3).values
    assert values.tolist() == [[t[0], len(t), sum(t)] for t in texts]
    assert sizes == [4, 4, 2]
    assert threading.get_ident() not in threads


def test_run_says_which_items_were_cut():
    def cut(items):
        return [Tokens(item[:2], truncated=len(item) > 2) for item in items]

    computed = batcher().run([[1], [1, 2, 3], [4, 5]], cut, first_and_length, width=3)
    assert computed.truncated.tolist() == [False, True, False]
    assert computed.values[:, 1].tolist() == [1, 2, 2]


def test_run_hands_over_each_batch_as_it_ends():
    heard = {}

    def note(rows, computed):
        heard.update(zip(rows.tolist(), computed.values[:, 1].tolist(), strict=True))

    texts = [[1] * (1 + i % 9) for i in range(30)]
    batcher().run(texts, tokenize, first_and_length, width=3, on_batch=note)
    assert heard == {i: len(text) for i, text in enumerate(texts)}


def test_run_of_nothing_is_an_empty_array():
    assert run([]).shape == (0, 3)


def test_run_raises_what_tokenising_raises():
    def broken(items):
        raise ValueError("no such word")

    with pytest.raises(ValueError, match="no such word"):
        batcher().run([[1]], broken, first_and_length, width=3)


@given(sequences, budgets)
def test_metering_counts_tokens_and_hears_how_far_it_is(texts, budget):
    heard: list[tuple[int, int]] = []
    with metering(lambda done, total: heard.append((done, total))) as meter:
        run(texts, budget=budget)
    assert meter.tokens == sum(len(text) for text in texts)
    assert meter.computed == len(texts)
    assert len({total for _, total in heard}) <= 1
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert not heard or heard[-1][0] == heard[-1][1]


@pytest.mark.parametrize("room", [80, 200, 2000])
def test_run_halves_a_batch_that_does_not_fit_and_goes_on_at_the_size_that_did(room):
    sizes, refused = [], []

    def forward(batch: TokenBatch) -> np.ndarray:
        if batch.ids.size > room:
            refused.append(batch.ids.size)
            raise MemoryError
        sizes.append(len(batch.ids))
        return first_and_length(batch)

    texts = [[i, i + 1, 2] for i in range(37)] + [[1] * 20] * 40
    expected = [[t[0], len(t), sum(t)] for t in texts]
    budget = TokenBudget(1000)
    frugal = Batcher(PAD, budget)
    assert frugal.run(texts, tokenize, forward, width=3).values.tolist() == expected
    assert all(size % 4 == 0 for size in sizes)  # four sequences of four tokens are sixteen
    assert refused == sorted(refused, reverse=True)
    assert len(refused) <= 4  # each refusal halves what is tried: 1000 tokens to 80
    assert frugal.run(texts, tokenize, forward, width=3).values.tolist() == expected
    assert len(refused) <= 4


def test_run_gives_up_when_the_smallest_batch_does_not_fit():
    def forward(batch: TokenBatch) -> np.ndarray:
        raise MemoryError(f"{len(batch.ids)} texts do not fit")

    with pytest.raises(MemoryError, match="4 texts do not fit"):
        run([[i] for i in range(20)], forward)
