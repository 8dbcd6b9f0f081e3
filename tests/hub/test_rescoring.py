"""Scoring again is scoring anew; the rest of it is tested through ``verify``."""

import numpy as np
import pytest
from datasets import Dataset

from im_datasets.data.pairs import Pairs
from im_datasets.hub import rescoring
from im_datasets.hub.rescoring import rescore
from im_datasets.indicators import FunctionIndicator, KNNDistance, Similarity
from im_datasets.indicators.settings import NotRescorable
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import current_store, using_store
from im_datasets.scoring.record import IndicatorRecord


def test_rescore_takes_nothing_from_the_store(tmp_path):
    seen = []

    def noted(batch):
        seen.append(current_store())
        return {"x": [1.0, 2.0]}

    indicator = FunctionIndicator(function=noted, names=("x",))
    record = IndicatorRecord("FunctionIndicator", "1", ["x"], {})
    rows = Dataset.from_dict({"im_row": [0, 7], "x": [1.0, 2.5]})
    with using_store(tmp_path):
        (agreement,) = rescore(indicator, record, Pairs.of(["a", "b"], ["c", "d"]), rows)
    assert seen == [None]
    assert agreement.differing == [7]


def test_rescore_by_another_static_model_is_no_claim_either_way(monkeypatch):
    monkeypatch.setattr(Embedder, "embed", lambda self, texts: np.eye(2, dtype=np.float32)[: len(texts)])
    monkeypatch.setattr(Embedder, "describe", lambda self: {"revision": "sha256:2"})
    model = {"id": "static", "revision": "sha256:1", "dtype": "float32", "device": "cpu"}
    record = IndicatorRecord("Similarity", "1", ["im_similarity"], {}, model)
    rows = Dataset.from_dict({"im_row": [0], "im_similarity": [0.0]})
    with pytest.raises(NotRescorable, match="the static model distilled here is sha256:2, the record names sha256:1"):
        rescore(Similarity(embedder=Embedder(model="static")), record, Pairs.of(["a"], ["b"]), rows)


def test_rescore_compares_neighbours_in_the_precision_of_the_record(monkeypatch):
    # 0, 1 and 3 on a line, a third of that each: rounded to half precision, a distance of 1/3 becomes 0.33325.
    line = np.array([[0], [1], [3]], dtype=np.float32) / 3
    monkeypatch.setattr(KNNDistance, "vectors", lambda *_: line)
    monkeypatch.setattr(Embedder, "describe", lambda self: {"revision": "sha256:1"})
    rows = Dataset.from_dict({"im_row": [0, 1, 2], "im_knn_1": [0.333251953125, 0.333251953125, 0.666748046875]})
    pairs = Pairs.of(["a", "b", "c"], ["d", "e", "f"])

    def differing(search):
        model = {"id": "m", "revision": "sha256:1", "dtype": "float32"}
        record = IndicatorRecord("KNNDistance", "2", ["im_knn_1"], {}, model, search=search)
        monkeypatch.setattr(rescoring, "tolerance_of", lambda _: 1e-6)
        (agreement,) = rescore(KNNDistance(k=1), record, pairs, rows)
        return agreement.differing

    assert differing({"method": "nn-descent", "vectors": "float16"}) == []
    assert differing({"method": "exact"}) == [0, 1, 2]
    with pytest.raises(NotRescorable, match="its vectors were kept as 'int8', which is no precision that is known"):
        differing({"vectors": "int8"})
