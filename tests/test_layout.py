"""The layout shows the flow: which folder may import from which, where the public names are, how large a room is."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import im_datasets
from im_datasets import calibration, indicators

PACKAGE = Path(im_datasets.__file__).parent

ALLOWED = {
    "common": set(),
    "data": {"common"},
    "models": {"common", "data"},
    "indicators": {"common", "data", "models"},
    "rules": {"common", "data", "models", "indicators"},
    "scoring": {"common", "data", "models", "indicators", "rules"},
    "selection": {"common", "data", "models", "indicators", "rules", "scoring"},
    "report": {"common", "data", "indicators", "rules", "scoring", "selection"},
    "hub": {"common", "data", "models", "indicators", "rules", "scoring", "selection", "report"},
    "calibration": {
        *("common", "data", "models", "indicators"),
        *("rules", "scoring", "selection", "report"),
    },
    "pipeline": {
        *("common", "data", "models", "indicators"),
        *("rules", "scoring", "selection", "report"),
    },
    "cli": {
        *("common", "data", "models", "indicators", "rules"),
        *("scoring", "selection", "report", "hub", "calibration", "pipeline"),
    },
    "__main__": {"cli"},
}
"""Folder or file beside the package's face → the ones it may import from; they stand in the order of the flow."""

MOST_MODULES = 15
"""In one folder, without its ``__init__`` and without the folders in it."""


def modules() -> dict[str, Path]:
    """Dotted name within the package → file, the package's face left out."""
    files = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    names = {".".join(parts).removesuffix("__init__").removesuffix("."): path for path, parts in files.items()}
    return {name: path for name, path in names.items() if name}


def imported(path: Path) -> set[str]:
    """Modules of this package that a module imports anywhere in it, type-checking blocks included; "" is its face."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "im_datasets":
            names |= {alias.name if alias.name in ALLOWED else "" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("im_datasets."):
            inner = {f"{node.module}.{alias.name}".removeprefix("im_datasets.") for alias in node.names}
            names |= {name if name in MODULES else node.module.removeprefix("im_datasets.") for name in inner}
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("im_datasets").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "im_datasets"
            }
    return names


MODULES = modules()


def test_every_folder_is_in_the_table():
    assert {name.split(".")[0] for name in MODULES} == set(ALLOWED)
    assert len(ALLOWED) - len({"__main__"}) <= 12


def test_the_table_is_one_way():
    order = list(ALLOWED)
    assert all(order.index(earlier) < order.index(name) for name in ALLOWED for earlier in ALLOWED[name])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_what_its_folder_may(module):
    folder = module.split(".")[0]
    wrong = {name for name in imported(MODULES[module]) if name.split(".")[0] not in {*ALLOWED[folder], folder}}
    assert not wrong


def test_no_module_imports_in_a_circle():
    arrows = {name: imported(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    while free := {name for name, inner in arrows.items() if not inner}:
        arrows = {name: inner - free for name, inner in arrows.items() if name not in free}
    assert not arrows


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda path: path.name)
def test_folder_is_of_a_fair_size_and_says_what_goes_in_and_out(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MOST_MODULES
    if folder != PACKAGE:
        first = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or "").split("\n")[
            0
        ]
        assert " in" in first
        assert " out" in first


@pytest.mark.parametrize("package", [im_datasets, indicators, calibration])
def test_all_is_complete_and_every_name_is_there(package):
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    lists = [node.value for node in stub.body if isinstance(node, ast.Assign)]
    assert package.__all__ == sorted(ast.literal_eval(lists[0]))
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No im_datasets attribute nothing"):
        im_datasets.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["im_datasets", "im_datasets.cli.main"])
def test_import_leaves_the_heavy_libraries_alone(module):
    heavy = {"torch", "transformers", "datasets", "faiss", "matplotlib", "pandas", "numpy", "pyarrow"}
    code = f"import {module}, sys; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_submodules_do_not_hide_public_names():
    for module in MODULES:
        importlib.import_module(f"im_datasets.{module}")
    assert callable(im_datasets.mine)
    assert callable(im_datasets.score)
    assert callable(im_datasets.select)
