"""What runs in Ray's workers: messages, the board, and the refusal to compute otherwise than the driver."""

import dill
import pytest
from indicators_for_tests import Letters

from im_datasets.common.errors import EngineError
from im_datasets.data.columns import Columns
from im_datasets.scoring.engines import ray_worker
from im_datasets.scoring.engines.ray_worker import ActorSetup, ready, surroundings
from im_datasets.scoring.scorer import ShardScorer

pytestmark = pytest.mark.slow


def test_worker_that_would_compute_otherwise_is_refused(monkeypatch):
    from im_datasets.models import embedder as embedding

    monkeypatch.setattr(embedding, "_CACHE", embedding._Cache())
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    scorer = ShardScorer((Letters(),), Columns(instruction="instruction", response="output"))
    here = surroundings(scorer)
    other = {**here, "versions": {**here["versions"], "torch": "1.0"}}
    assert ready(dill.dumps(ActorSetup(scorer, 3, 1, 1, here, "node", None))).surroundings == here
    with pytest.raises(EngineError, match=r"a worker has other versions \(.*'torch': '1.0'.*give all nodes the same"):
        ready(dill.dumps(ActorSetup(scorer, 3, 1, 1, other, "node", None)))


def test_messages_survive_the_way():
    table = ray_worker.packed(7, {"a": [1]})
    assert ray_worker.unpacked(table) == [(7, {"a": [1]})]


def test_board_tells_news_once():
    board = ray_worker.Board()
    assert [board.begin(3, "a"), board.begin(3, "b")] == [0, 1]
    board.move(3, 10, 20)
    assert board.news() == ({3: 2}, {3: (10, 20)})
    assert board.news() == ({3: 2}, {})


def test_board_counts_the_actors_at_work():
    board = ray_worker.Board()
    assert [board.begin(shard, actor) for shard, actor in ((3, "a"), (4, "b"), (5, "a"))] == [0, 0, 0]
    assert board.workers() == 2
    assert board.begin(5, "c") == 1  # a was lost
    assert board.workers() == 2
    assert board.begin(6, "a") == 0  # or not
    assert board.workers() == 3
