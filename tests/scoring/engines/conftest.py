"""Small shards, so that few rows are many of them."""

import pytest


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 20 rows, in chunks of 8."""
    from im_datasets.scoring import score as scoring

    monkeypatch.setattr(scoring, "SHARD_ROWS", 20)
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 8)
