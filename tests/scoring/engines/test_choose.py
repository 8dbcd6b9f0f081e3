"""choose_engine: an engine by its name, and what does not go together."""

import sys

import pytest

from im_datasets.cli import main as cli
from im_datasets.common.errors import EngineError, MissingExtraError
from im_datasets.scoring.engines.choose import choose_engine
from im_datasets.scoring.engines.local import LocalEngine


def test_local_engine_has_one_worker_unless_told():
    assert choose_engine("local") == LocalEngine(1)
    assert choose_engine("local", 3) == LocalEngine(3)


def test_unknown_engine_and_stray_address_are_refused():
    with pytest.raises(EngineError, match="no engine 'spark'; pass local or ray"):
        choose_engine("spark")
    with pytest.raises(EngineError, match=r"takes no address \(auto\); pass --engine ray too"):
        choose_engine("local", address="auto")


def test_ray_without_its_extra_gives_the_pip_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'im-datasets\[ray\]'"):
        choose_engine("ray")
    monkeypatch.setattr(sys, "argv", ["im-datasets", "score", "none.jsonl", "--out", "out", "--engine", "ray"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "im-datasets: error: the Ray engine needs Ray; pip install" in capsys.readouterr().err
