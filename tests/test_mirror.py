"""Tests mirror the package: a test of a module lies in the folder of the same name, in a file of the same name."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS, PACKAGE = ROOT / "tests", ROOT / "im_datasets"

OF_THE_PROJECT = {
    "docs": "snippets and claims of README and docs",
    "gate": "linter, formatter, type checker",
    "layout": "imports between folders",
    "mirror": "this",
    "network_guard": "the guard in conftest.py",
    "public_contract": "names, commands and files that users build on",
    "score_and_select": "the pipeline in two steps",
    "wheel": "what is installed",
    "hub/attacks/hostile_sources": "repositories and folders of strangers, read as sources",
    "hub/attacks/media": "files and addresses that rows name",
    "hub/attacks/disguises": "publications that look as if push had written them, and what verification says of them",
    "hub/attacks/forgeries": "forged publications, and what verification says of them",
    "hub/attacks/every_claim": "each claim of a publication changed, one after another",
    "cli/hf_extension": "the command as an extension of hf",
    "hub/attacks/kills": "mine, score and push, killed at any step",
    "hub/attacks/hostile_files": "files that would end or fill the process that reads them",
    "hub/attacks/hostile_records": "records and rows of a stranger's with anything in any place",
    "hub/attacks/hostile_names": "names of columns, files, rules and indicators that would be more than names",
    "hub/attacks/hostile_rows": "ten thousand rows that would be more than texts",
    "hub/attacks/bombs": "repositories that would take all memory or time, or lead out of themselves",
    "hub/attacks/faults": "every failure at every request of verify and push",
    "indicators/contract": "what every indicator owes",
    "indicators/resume": "killed runs of indicators with a model",
    "rules/published_rules": "the shipped rules as they came from their papers",
    "scoring/engines/kill": "killed runs over shards",
}
"""Tests of more than one module → what they hold."""

TESTED_WITH = {
    "calibration/fit/caveats": "calibration/fit/rule_fit",
    "calibration/fit/diagnostic_plots": "calibration/fit/report",
    "calibration/fit/evidence": "calibration/fit/rule_fit",
    "common/errors": "layout",
    "common/version": "cli/hf_extension",
    "data/conversations": "data/columns",
    "data/hub_repository": "hub/attacks/hostile_sources",
    "data/layouts": "data/columns",
    "data/pairs": "data/columns",
    "data/text_bounds": "hub/attacks/hostile_files",
    **dict.fromkeys(
        (f"hub/verification/{name}" for name in ("card", "duplicates", "indicators", "reasons", "repository", "texts")),
        "hub/attacks/forgeries",
    ),
    "data/saved_folder": "hub/attacks/hostile_sources",
    "indicators/base": "indicators/contract",
    "indicators/knn/search": "indicators/knn/indicator",
    "indicators/likelihood/causal_scorer": "indicators/likelihood/indicator",
    "indicators/model": "indicators/contract",
    "indicators/t5_first_step": "indicators/unieval",
    "hub/media": "hub/attacks/media",
    "report/card_blocks": "report/card",
    "report/plot_style": "report/figures",
    "scoring/assembly": "scoring/score",
    "scoring/engines/base": "scoring/engines/local",
    "scoring/engines/worker": "scoring/engines/local",
    "scoring/request": "pipeline",
    "scoring/run_record": "scoring/score",
    "scoring/scored_files": "score_and_select",
    "scoring/scorer": "scoring/score",
    "selection/walk": "selection/select",
    "selection/added_columns": "hub/attacks/hostile_records",
}
"""A module without a test file of its own → the file that tests it through its only user or with its sibling."""

BESIDE = {"benchmarks", "examples", "golden", "metrics", "support"}
"""Folders of tests that mirror no folder of the package."""


def _modules() -> set[str]:
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
    return {path.with_suffix("").as_posix() for path in paths}


def _tests() -> set[str]:
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
    names = {path.with_name(path.stem.removeprefix("test_")).as_posix() for path in paths}
    return {name for name in names if name.split("/")[0] not in BESIDE}


def test_every_folder_of_tests_is_one_of_the_package_or_named():
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {name for name in folders - BESIDE if not (PACKAGE / name).is_dir()} == set()


@pytest.mark.parametrize("module", sorted(_modules()))
def test_every_module_has_its_tests(module):
    assert (module in _tests()) != (module in TESTED_WITH)
    assert TESTED_WITH.get(module, module) in _tests()


def test_every_test_file_mirrors_a_module_or_says_what_it_holds():
    assert _tests() - _modules() == set(OF_THE_PROJECT)


def test_the_tables_name_nothing_that_is_gone():
    assert set(TESTED_WITH) <= _modules()
