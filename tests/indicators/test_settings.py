"""An indicator as plain data: what a rule or a record holds makes the same indicator again, and runs nothing else."""

import json
from dataclasses import dataclass, replace

import pytest

from im_datasets.indicators import (
    MTLD,
    FunctionIndicator,
    Indicator,
    KNNDistance,
    Length,
    Quality,
    Reward,
    Similarity,
    TargetSimilarity,
)
from im_datasets.indicators.knn.indicator import FittedKNNDistance
from im_datasets.indicators.settings import (
    NotRescorable,
    compares_rows,
    describe_model,
    embedder_of,
    find_indicator,
    from_settings,
    identity,
    other_weights,
    own_settings,
    rebuild,
    rebuild_embedder,
    runs_model,
    shared_embedder,
    to_settings,
    weights_of,
    without_weights,
)
from im_datasets.models.embedder import Embedder
from im_datasets.scoring.record import IndicatorRecord


@dataclass(frozen=True, kw_only=True)
class Centred(Indicator):
    """A user's own, with an encoder and a setting that has no default."""

    version = "1"
    writes = ("my_centred",)

    limits: tuple[int, ...]
    embedder: Embedder | None = None

    def score(self, instructions, responses):
        return {"my_centred": [0.0] * len(responses)}


def recorded(name="Length", settings=None, **more):
    return IndicatorRecord(name, "1", ["x"], settings or {}, **more)


def test_only_an_unfitted_neighbour_distance_compares_rows():
    fitted = FittedKNNDistance(knn=KNNDistance(), rows=7, digest="0")
    assert [compares_rows(i) for i in (KNNDistance(), fitted, Length(), Quality())] == [True, False, False, False]


def test_runs_model_tells_a_model_of_its_own_from_the_shared_encoder():
    assert [runs_model(i) for i in (Reward(model="m"), Similarity(), Length())] == [True, False, False]


def test_embedder_of_is_the_field_of_that_name_in_whatever_class():
    short = Embedder(max_tokens=64)
    assert embedder_of(Similarity(embedder=short)) == short
    assert embedder_of(FittedKNNDistance(knn=KNNDistance(embedder=short), rows=7, digest="0")) == short
    assert embedder_of(Centred(limits=(), embedder=short)) == short
    assert [embedder_of(i) for i in (Centred(limits=()), Length(), Reward(model="m"))] == [None, None, None]


def test_shared_embedder_is_the_first_or_the_default():
    short = Embedder(max_tokens=64)
    assert shared_embedder([Length(), Similarity(embedder=short), KNNDistance()]) == short
    assert shared_embedder([MTLD()]) == Embedder()


def test_describe_model_is_none_without_one(monkeypatch):
    monkeypatch.setattr(Embedder, "describe", lambda self: {"id": self.model})
    assert [describe_model(i) for i in (Similarity(), Length())] == [{"id": "embedded"}, None]


def test_weights_of_tells_the_weights_of_embedders(monkeypatch):
    monkeypatch.setattr(Embedder, "weights", lambda self: f"weights of {self.model}")
    indicators = [MTLD(), Similarity(embedder=Embedder(model="folder"))]
    assert [weights_of(indicator) for indicator in indicators] == [None, {"embedder": "weights of folder"}]


def test_shared_embedder_passes_over_a_causal_model():
    causal = TargetSimilarity(targets=[("a", "b")], embedder=Embedder(kind="causal"))
    assert shared_embedder([causal]) == Embedder()
    assert shared_embedder([causal, Similarity(embedder=Embedder("static"))]) == Embedder("static")


def test_rebuild_refuses_an_indicator_whose_targets_are_not_in_the_record():
    indicator = TargetSimilarity(targets=[("a", "b")])
    record = recorded("TargetSimilarity", indicator.settings())
    with pytest.raises(NotRescorable, match="of its targets the record has the digest alone"):
        rebuild(record)


def test_identity_names_class_settings_and_weights_and_no_place(monkeypatch):
    monkeypatch.setattr(Embedder, "weights", lambda self: "sha256:1")
    here, there = (Similarity(embedder=Embedder(place, device=d)) for place, d in (("a", "cpu"), ("b", None)))
    assert identity(here) == identity(there) == {
        "class": "Similarity",
        "columns": "None",
        "embedder": {"class": "Embedder", "model": "sha256:1", "revision": None, "dtype": "'float32'",
                     "max_tokens": "None", "kind": "'sentence'"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "indicator",
    [
        Length(),
        MTLD(threshold=0.5),
        Similarity(embedder=Embedder(max_tokens=64)),
        KNNDistance(k=3, text="both", embedder=Embedder("static")),
        Reward(model="org/tiny", max_tokens=128),
        Centred(limits=(1, 2), embedder=Embedder(max_tokens=32)),
    ],
)
def test_settings_make_the_same_indicator_again(indicator):
    for settings in (to_settings(indicator), own_settings(indicator)):
        plain = json.loads(json.dumps(settings))
        assert plain == settings
        assert type(indicator)(**from_settings(plain)) == indicator


def test_own_settings_are_those_that_are_no_default():
    assert own_settings(Similarity()) == {}
    assert own_settings(MTLD(threshold=0.5)) == {"threshold": 0.5}
    assert own_settings(Centred(limits=(1,))) == {"limits": [1], "embedder": None}


def test_a_local_model_is_stated_by_folder_and_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    stated = to_settings(Similarity(embedder=Embedder(str(tmp_path))))
    assert stated["embedder"]["model"] == str(tmp_path)
    assert other_weights(stated) is None
    assert "weights" not in without_weights(stated)["embedder"]
    (tmp_path / "config.json").write_text("[]")
    assert "in this folder has sha256:" in other_weights(stated)
    gone = {"model": str(tmp_path / "none"), "weights": "sha256:1"}
    assert other_weights(gone).endswith("with sha256:1, and there is no such folder")


def test_settings_of_a_function_are_its_name_and_columns():
    assert to_settings(FunctionIndicator(function=len, names=("x",))) == {"function": "builtins.len", "names": ["x"]}


def test_find_indicator_knows_names_of_this_package_and_no_other_thing_of_it():
    assert find_indicator("KNNDistance") is KNNDistance
    assert [find_indicator(name) for name in ("COLUMNS", "Column", "nothing")] == [None, None, None]


def test_rebuild_knows_the_static_embedder_by_name():
    settings = {
        "embedder": {"model": "static", "revision": None, "dtype": "float32", "device": "cpu", "max_tokens": None}
    }
    model = {"id": "static", "revision": "sha256:1", "dtype": "float32", "device": "cpu"}
    record = IndicatorRecord("Similarity", "1", ["im_similarity"], settings, model)
    assert rebuild(record) == Similarity(embedder=Embedder(model="static"))


def test_rebuild_pins_a_hub_model_to_the_recorded_commit():
    sha = "a" * 40
    model = {"id": "org/tiny", "revision": sha, "dtype": "bfloat16", "device": "cuda"}
    settings = {"model": "org/tiny", "revision": "main", "dtype": None, "device": "cuda"}
    indicator = rebuild(recorded("Reward", settings, model=model))
    assert (indicator.revision, indicator.dtype, indicator.device) == (sha, "bfloat16", None)


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (recorded("os.system"), "is no indicator of this package"),
        (recorded("COLUMNS"), "is no indicator of this package"),
        (replace(recorded(), version="999"), "of version 1 here, the rows were scored by version 999"),
        (recorded(settings={"nonsense": 1}), "does not take its recorded settings"),
        (recorded("MTLD", {"threshold": 7}), "is out of range"),
        (recorded("Reward", {"model": "folder", "trust_remote_code": True}), "runs code from the model's repository"),
        (recorded("Reward", {"model": "/etc/passwd"}), "is no id of the Hub"),
        (recorded("Reward", {"model": "tiny"}, model={"revision": "sha256:1"}), "was a local folder"),
    ],
)
def test_rebuild_refuses_what_it_should_not_run(record, match):
    with pytest.raises(NotRescorable, match=match):
        rebuild(record)


@pytest.mark.parametrize("name", ["models", "a/b", "data.gguf"])
@pytest.mark.parametrize("kind", ["model", "tokenizer", "embedder"])
def test_rebuild_opens_nothing_here_that_has_the_name_of_a_model(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    sha = "a" * 40
    stated = {
        "model": recorded("Reward", {"model": name}, model={"id": name, "revision": sha}),
        "tokenizer": recorded("Length", {"tokenizer": name, "revision": sha}),
        "embedder": recorded("Similarity", {"embedder": {"model": name}}, model={"id": name, "revision": sha}),
    }
    with pytest.raises(NotRescorable, match="is also the name of something in this folder"):
        rebuild(stated[kind])


@pytest.mark.parametrize(
    ("tokenizer", "revision", "match"),
    [
        ("/etc", None, "its tokenizer '/etc' is no id of the Hub"),
        ("../x", None, "is no id of the Hub"),
        ("org/..", None, "is no id of the Hub"),
        (["embedded"], None, "is no id of the Hub"),
        ("org/name", None, "no commit of it was recorded"),
        ("org/name", "main", "no commit of it was recorded"),
    ],
)
def test_rebuild_holds_a_tokenizer_to_the_rules_of_a_model(tokenizer, revision, match):
    with pytest.raises(NotRescorable, match=match):
        rebuild(recorded("Length", {"tokenizer": tokenizer, "revision": revision}))


def test_rebuild_takes_a_tokenizer_at_a_commit():
    sha = "b" * 40
    assert rebuild(recorded("Length", {"tokenizer": "org/name", "revision": sha})).revision == sha


def test_rebuild_refuses_a_function_of_the_publisher():
    with pytest.raises(NotRescorable, match="runs a function of its publisher's"):
        rebuild(recorded("FunctionIndicator", {"function": "os.system", "names": ["x"]}))


def test_rebuild_embedder_of_a_record():
    settings = {"embedder": {"model": "embedded", "device": "cuda", "max_tokens": 64}}
    assert rebuild_embedder(recorded("Similarity", settings)) == Embedder(max_tokens=64)
    assert rebuild_embedder(recorded("Length")) is None
    with pytest.raises(NotRescorable, match="embedder is none of this package's"):
        rebuild_embedder(recorded("Similarity", {"embedder": "code"}))
    with pytest.raises(NotRescorable, match="its embedder does not take its recorded settings here"):
        rebuild_embedder(recorded("Similarity", {"embedder": {"nonsense": 1}}))
