"""The layout shows the flow: a module imports only from earlier stages, and the public names are complete."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import im_datasets
from im_datasets import calibration, indicators

PACKAGE = Path(im_datasets.__file__).parent

STAGES = [
    {"errors", "resources"},
    {"metric_modules", "hub_errors"},
    {"turns", "layouts", "row_files", "gpt_neox_reward"},
    {"batching", "models", "columns", "templates", "store", "files", "shards", "matrix", "descent"},
    {"rows", "engine", "checkpoints", "prompts", "first_step", "progress", "partial", "static"},
    {"embedding", "nearest", "source", "record", "causal", "reward_format"},
    {"indicators.base"},
    {"surface", "indicators.model"},
    {
        "indicators.function",
        "indicators.length",
        "indicators.likelihood",
        "indicators.mtld",
        "indicators.similarity",
        "indicators.quality",
        "indicators.neighbours",
        "indicators.reward",
        "indicators.unieval",
    },
    {"indicators"},
    {"rule"},
    {"mining", "measurement", "shard_scoring"},
    {"demo"},
    {"engines"},
    {"engines.base", "engines.worker"},
    {"engines.local", "engines.ray_worker"},
    {"engines.ray"},
    {"engines.choice"},
    {"scoring"},
    {"contamination", "duplicates"},
    {"screening"},
    {"selection"},
    {"results", "gathering"},
    {"scored_files"},
    {"overview"},
    {"figures"},
    {"manifest", "licences"},
    {"report", "card"},
    {"output", "card_merge", "parts", "secret_scan"},
    {"pipeline"},
    {"attribution"},
    {"published"},
    {"hub", "rescoring", "spaces"},
    {"verification", "stepwise"},
    {"calibration.runs"},
    {"calibration.observations"},
    {"calibration.choice"},
    {"calibration.regression"},
    {"calibration.procedure"},
    {"calibration.resampling"},
    {"calibration.caveats"},
    {"calibration.fit"},
    {"calibration.fit_figures"},
    {"calibration.fit_report"},
    {"calibration.pool", "calibration.curves"},
    {"calibration.evaluation"},
    {"calibration.finetuning"},
    {"calibration.experiment"},
    {"calibration.mixtures", "calibration.comparison"},
    {"calibration.search"},
    {"calibration.options"},
    {"calibration.cli", "calibration.experiments_cli"},
    {"calibration"},
    {"summary"},
    {"cli"},
    {"__main__"},
]
STAGE_OF = {module: stage for stage, modules in enumerate(STAGES) for module in modules}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name not in {"__init__", "rules"}:
            found[name] = path
    return found


def _imports(path: Path) -> set[str]:
    """Modules of this package that a module imports, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped or not node.module:
            continue
        if node.module == "im_datasets":
            found |= {alias.name for alias in node.names if alias.name in STAGE_OF}
        elif node.module.startswith("im_datasets."):
            found.add(node.module.removeprefix("im_datasets."))
    return found


def test_every_module_has_a_stage():
    assert set(_modules()) == set(STAGE_OF)


@pytest.mark.parametrize("module", sorted(_modules()))
def test_module_imports_only_from_earlier_stages(module):
    later = {name for name in _imports(_modules()[module]) if STAGE_OF[name] >= STAGE_OF[module]}
    assert not later


@pytest.mark.parametrize("package", [im_datasets, indicators, calibration])
def test_all_is_complete_and_every_name_is_there(package):
    assert sorted(package.__all__) == sorted({*package._MODULES, *({"__version__"} & set(vars(package)))})
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        im_datasets.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["im_datasets", "im_datasets.cli"])
def test_import_leaves_the_heavy_libraries_alone(module):
    heavy = {"torch", "transformers", "datasets", "faiss", "matplotlib", "pandas", "numpy", "pyarrow"}
    code = f"import {module}, sys; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_submodules_do_not_hide_public_names():
    for module in _modules():
        importlib.import_module(f"im_datasets.{module}")
    assert callable(im_datasets.mine)
    assert callable(im_datasets.score)
    assert callable(im_datasets.select)
