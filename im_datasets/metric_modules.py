"""The `evaluate` modules that ship with this package: where they lie, and loading one by its name."""

from pathlib import Path
from typing import Any

from im_datasets.common.errors import ModuleNameError

PREFIX = "im_"


def modules_folder() -> Path:
    """The folder of the modules, in an installed package or in a checkout.

    Raises:
        ModuleNameError: The installation lacks it.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "metrics", here.parent / "metrics"):
        if (folder / "im_length" / "im_length.py").is_file():
            return folder
    raise ModuleNameError(f"the evaluate modules are missing from {here / 'metrics'}; reinstall im-datasets")


def module_names() -> list[str]:
    """Names of the modules, sorted.

    Example:
        >>> "im_mtld" in module_names()
        True
    """
    return sorted(p.name for p in modules_folder().glob(f"{PREFIX}*") if (p / f"{p.name}.py").is_file())


def module_path(name: str) -> Path:
    """The folder of a module, as ``evaluate.load`` takes it.

    Args:
        name: A module's name, with or without ``im_``.

    Raises:
        ModuleNameError: No such module.

    Example:
        >>> module_path("mtld").name
        'im_mtld'
    """
    full = PREFIX + name.removeprefix(PREFIX)
    if full not in module_names():
        raise ModuleNameError(f"no evaluate module {name!r}; known: {', '.join(module_names())}")
    return modules_folder() / full


def metric(name: str, config_name: str | None = None, **options: Any) -> Any:
    """Load a shipped module with `evaluate`, wherever this package is installed.

    Args:
        name: A module's name, with or without ``im_``.
        config_name: As ``evaluate.load`` takes it; changes nothing.
        options: Further options of ``evaluate.load`` (``keep_in_memory``, ``num_process``, …), and settings of the
            module, which are then its defaults.

    Returns:
        The ``evaluate.EvaluationModule``.

    Raises:
        ModuleNameError: No such module.
        TypeError: An option that neither `evaluate` nor the module knows.

    Example:
        >>> mtld = metric("mtld", keep_in_memory=True)
        >>> mtld.compute(predictions=["To be, or not to be, said he."])["im_mtld"]
        [8.48]
    """
    import evaluate

    return evaluate.load(str(module_path(name)), config_name, **options)
