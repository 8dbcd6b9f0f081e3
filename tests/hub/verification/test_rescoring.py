"""Scoring again is scoring anew; the rest of it is tested through ``verify``."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Value
from forging import forge
from verifying import (
    DROPPED,
    FAILED,
    NOT_CHECKED,
    REPO,
    edit_manifest,
    failures,
    rewrite,
    set_value,
    told,
)

from im_datasets import push_selected, verify
from im_datasets.data.pairs import Pairs
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification import rescoring
from im_datasets.hub.verification.rescoring import rescore
from im_datasets.indicators import FunctionIndicator, KNNDistance, Similarity
from im_datasets.indicators.settings import NotRescorable, rebuild
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


def test_a_model_of_the_publishers_choice_is_named(published, monkeypatch):
    """Who makes a model that says what the scores ought to be has scores that come out again."""
    folder = published(include_dropped=True)
    verification = verify(folder)
    assert verification.ok
    assert "publisher chose" not in told(verification, NOT_CHECKED)
    quality = next(i for i in PublishedSelection.open(folder).record.indicators if i.name == "Quality")
    honest = rescoring.rebuild
    monkeypatch.setattr(rescoring, "rebuild", lambda r: honest(quality if r.name == quality.name else r))
    monkeypatch.setattr(rescoring, "_check_weights", lambda *_: None)

    def change(manifest):
        for indicator in manifest["record"]["indicators"]:
            if indicator["name"] == "Quality":
                indicator["model"].update(id="evil/encoder", revision="0123456789" * 4)

    edit_manifest(folder, change)
    line = "im_quality: by evil/encoder at 012345678901, which the publisher chose; look who made it, and of what"
    assert line in told(verify(folder), NOT_CHECKED)


def test_rescore_by_another_static_model_is_no_claim_either_way(monkeypatch):
    monkeypatch.setattr(Embedder, "embed", lambda self, texts: np.eye(2, dtype=np.float32)[: len(texts)])
    monkeypatch.setattr(Embedder, "describe", lambda self: {"id": "static", "revision": "sha256:2"})
    model = {"id": "static", "revision": "sha256:1", "dtype": "float32", "device": "cpu"}
    record = IndicatorRecord("Similarity", "1", ["im_similarity"], {}, model)
    rows = Dataset.from_dict({"im_row": [0], "im_similarity": [0.0]})
    with pytest.raises(NotRescorable, match="the static model distilled here is sha256:2, the record names sha256:1"):
        rescore(Similarity(embedder=Embedder(model="static")), record, Pairs.of(["a"], ["b"]), rows)


def test_rescore_compares_neighbours_in_the_precision_of_the_record(monkeypatch):
    # 0, 1 and 3 on a line, a third of that each: rounded to half precision, a distance of 1/3 becomes 0.33325.
    line = np.array([[0], [1], [3]], dtype=np.float32) / 3
    monkeypatch.setattr(KNNDistance, "vectors", lambda *_: line)
    monkeypatch.setattr(Embedder, "describe", lambda self: {"id": "m", "revision": "sha256:1"})
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


def test_verify_of_a_rule_with_a_local_model_says_that_it_cannot_be_had(hub, mined, tmp_path):
    record, place = mined.record, {"model": str(tmp_path / "mini"), "weights": "sha256:0a"}
    indicators = [
        replace(each, settings={**each.settings, "embedder": {"model": place["model"]}})
        if each.name == "Similarity"
        else each
        for each in record.indicators
    ]
    rule = replace(record.rule, name="fitted", indicators={"Similarity": {"embedder": place}})
    given = {"license": "cc0-1.0", "language": "en", "record": replace(record, rule=rule, indicators=indicators)}
    push_selected(mined.selection, REPO, **given)
    verification = verify(REPO, sample=4)
    assert verification.ok
    assert "Similarity: its model 'mini' was a local folder" in told(verification, NOT_CHECKED)


def test_verify_catches_a_changed_row_whose_checksum_was_made_right(published):
    folder = published(include_dropped=True)
    forge(folder, lambda forged: forged.kept[2].update(output="Something else altogether."))
    verification = verify(folder, sample=9)
    assert failures(verification) == {"sample"}
    assert re.search(r"im_quality: 1 of 9 rows score otherwise \(row \d", told(verification, FAILED))


def test_verify_catches_a_changed_indicator_with_a_score_to_match(published):
    folder = published(include_dropped=True)
    rows = Dataset(pq.read_table(folder / DROPPED))
    rewrite(folder, DROPPED, set_value("im_quality", 0, -50.0))
    rewrite(folder, DROPPED, set_value("im_log_loss", 0, 50.0))
    verification = verify(folder, sample=9)
    assert "rule" not in failures(verification)
    assert {"sample", "statistics", "card"} <= failures(verification)
    assert f"(row {rows['im_row'][0]})" in told(verification, FAILED)


def recorded(name="Length", settings=None, **more):
    return IndicatorRecord(name, "1", ["x"], settings or {}, **more)


def test_rebuild_gives_the_recorded_indicator(mined):
    for record in mined.record.indicators:
        indicator = rebuild(record)
        assert type(indicator).__name__ == record.name
        assert json.loads(json.dumps(_plain(indicator))) == json.loads(json.dumps(record.settings))


def _plain(indicator):
    from dataclasses import asdict, is_dataclass

    return {n: asdict(v) if is_dataclass(v) else v for n, v in indicator.settings().items()}


def test_difference_counts_missing_values():
    left, right = np.array([1.0, np.nan, np.nan, 3.0]), np.array([1.1, np.nan, 2.0, np.nan])
    assert rescoring._difference(left, right).tolist() == pytest.approx([0.05, 0.0, np.inf, np.inf])


def test_unscorable_rows_keep_their_reason(published):
    folder = published(include_dropped=True)
    dropped = Dataset(pq.read_table(folder / DROPPED))
    row = dropped["im_unscorable"][:].index("empty response")
    assert dropped.features["im_unscorable"] == Value("string")
    rewrite(folder, DROPPED, set_value("im_unscorable", row, "something else"))
    assert "the reason for having no score is another one" in told(verify(folder, sample=9), FAILED)


def test_a_model_that_is_too_large_is_not_fetched(hub, published, monkeypatch):
    folder = published(include_dropped=True)
    commit = hub.store.put(
        "org/huge", {"model.safetensors": b"x" * 100, "tokenizer.json": b"x" * 100}, kind="model"
    ).sha
    monkeypatch.setattr("im_datasets.hub.verification.rescoring.MODEL_BYTES", 50)

    def change(manifest):
        for indicator in manifest["record"]["indicators"]:
            if indicator["name"] == "Length":
                indicator["settings"] = {"tokenizer": "org/huge", "revision": commit}
            elif indicator["name"] == "Similarity":
                indicator["settings"]["embedder"]["model"] = "org/huge"
                indicator["model"] |= {"id": "org/huge", "revision": commit}

    edit_manifest(folder, change)
    hub.requests.clear()
    notes = told(verify(folder, sample=2), NOT_CHECKED)
    assert "Similarity: the files of org/huge come to 0 GiB; more than 0 GiB are not fetched for a record" in notes
    assert not [request for request in hub.requests if "/resolve/" in request.path]
