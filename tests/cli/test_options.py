"""Options of the command line: dataclasses of what is asked, and the texts that only a shell needs."""

from im_datasets.cli.options import load_objective


def test_load_objective_finds_modules_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "my_objective.py").write_text("def rows(dataset, seed):\n    return float(len(dataset))\n")
    monkeypatch.chdir(tmp_path)
    assert load_objective("my_objective:rows")([1, 2], 0) == 2.0
