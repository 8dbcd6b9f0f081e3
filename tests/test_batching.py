"""Batches: every sequence once, within the budget, in row order, with a listener and with memory that runs out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.batching import (
    KERNEL_ROWS,
    LENGTH_MULTIPLE,
    TokenBatch,
    listening,
    report,
    run_in_batches,
    token_batches,
)

PAD = 99

sequences = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=40), max_size=60)
budgets = st.integers(1, 300)


def first_and_length(batch: TokenBatch) -> np.ndarray:
    """A forward that tells its sequences apart: first id, number of ids, sum of ids."""
    real = batch.attention_mask == 1
    ids = np.where(real, batch.input_ids, 0)
    return np.stack([batch.input_ids[:, 0], real.sum(1), ids.sum(1)], axis=1).astype(np.float32)


def run(texts: list[list[int]], forward=first_and_length, budget: int = 64) -> np.ndarray:
    return run_in_batches(texts, forward, width=3, pad_id=PAD, token_budget=budget)


@given(sequences, budgets)
def test_token_batches_hold_every_sequence_once_as_it_was(texts, budget):
    batches = list(token_batches(texts, pad_id=PAD, token_budget=budget))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(texts)))
    for batch in batches:
        for place, row in enumerate(batch.rows):
            length = len(texts[row])
            assert batch.input_ids[place, :length].tolist() == texts[row]
            assert (batch.input_ids[place, length:] == PAD).all()
            assert batch.attention_mask[place].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)


@given(sequences, budgets)
def test_token_batches_respect_the_budget_and_the_row_multiple(texts, budget):
    for batch in token_batches(texts, pad_id=PAD, token_budget=budget):
        count, length = batch.input_ids.shape
        fewest = next(n for n in range(1, KERNEL_ROWS + 1) if n * length % KERNEL_ROWS == 0)
        assert length % LENGTH_MULTIPLE == 0
        assert batch.input_ids.size % KERNEL_ROWS == 0
        assert batch.input_ids.size <= budget or count == fewest
        assert 0 <= count - len(batch.rows) < fewest


@given(sequences, budgets)
def test_token_batches_pad_to_the_next_multiple_only_longest_first(texts, budget):
    lengths = []
    for batch in token_batches(texts, pad_id=PAD, token_budget=budget):
        lengths.append(batch.input_ids.shape[1])
        assert all(lengths[-1] - len(texts[row]) in range(LENGTH_MULTIPLE) for row in batch.rows)
    assert lengths == sorted(lengths, reverse=True)


def test_token_batches_fill_up_with_copies_of_the_first():
    (batch,) = token_batches([[1, 2, 3], [4]], pad_id=PAD, token_budget=64)
    assert batch.rows.tolist() == [0, 1]
    assert batch.input_ids.tolist() == [[1, 2, 3, PAD], [4, PAD, PAD, PAD], [1, 2, 3, PAD], [1, 2, 3, PAD]]


@given(sequences, budgets)
def test_run_in_batches_restores_row_order(texts, budget):
    expected = [[text[0], len(text), sum(text)] for text in texts]
    assert run(texts, budget=budget).tolist() == expected


@given(sequences)
def test_run_in_batches_runs_equal_sequences_once(texts):
    seen = []

    def forward(batch: TokenBatch) -> np.ndarray:
        real = batch.attention_mask[: len(batch.rows)].sum(1)
        seen.extend(tuple(batch.input_ids[i, : real[i]].tolist()) for i in range(len(batch.rows)))
        return first_and_length(batch)

    run(texts, forward)
    assert sorted(seen) == sorted({tuple(text) for text in texts})


def test_run_in_batches_of_nothing_is_an_empty_array():
    assert run([]).shape == (0, 3)


@given(sequences, budgets)
def test_listening_hears_the_real_tokens_of_the_distinct_sequences(texts, budget):
    heard: list[tuple[int, int]] = []
    with listening(lambda done, total: heard.append((done, total))):
        run(texts, budget=budget)
    tokens = sum(len(text) for text in {tuple(text) for text in texts})
    assert len(heard) == len(list(token_batches(list({tuple(t) for t in texts}), pad_id=PAD, token_budget=budget)))
    assert all(total == tokens for _, total in heard)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert not heard or heard[-1] == (tokens, tokens)


def test_listening_ends_with_its_block_even_after_an_error():
    outer: list[int] = []
    inner: list[int] = []
    with listening(lambda done, total: outer.append(done)):
        with pytest.raises(KeyError), listening(lambda done, total: [inner.append(done), {}[done]]):
            report(1, 3)
        report(2, 3)
    report(3, 3)
    assert (outer, inner) == ([2], [1])


@pytest.mark.parametrize("room", [4, 12, 100])
def test_run_in_batches_halves_a_batch_that_does_not_fit(room):
    sizes = []

    def forward(batch: TokenBatch) -> np.ndarray:
        if len(batch.input_ids) > room:
            raise MemoryError
        sizes.append(len(batch.input_ids))
        return first_and_length(batch)

    texts = [[i, i + 1, 2] for i in range(37)]
    assert run(texts, forward, budget=1000).tolist() == [[i, 3, 2 * i + 3] for i in range(37)]
    assert sum(sizes) == 40
    assert all(size % 4 == 0 for size in sizes)  # four sequences of four tokens are sixteen


def test_run_in_batches_gives_up_when_the_smallest_batch_does_not_fit():
    def forward(batch: TokenBatch) -> np.ndarray:
        raise MemoryError(f"{len(batch.input_ids)} texts do not fit")

    with pytest.raises(MemoryError, match="4 texts do not fit"):
        run([[i] for i in range(20)], forward)
