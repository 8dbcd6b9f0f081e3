"""The map of ``docs/architecture.md``: a line for every module, the first sentence that it says itself.

python tests/support/module_map.py   # writes the page's map anew, after modules came, went or say something else
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "im_datasets"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: python tests/support/module_map.py -->\n", "<!-- end of modules -->\n"
FLOW = (
    "common",
    "data",
    "models",
    "indicators",
    "rules",
    "scoring",
    "selection",
    "report",
    "hub",
    "calibration",
    "cli",
)
"""The folders in the order of the flow."""


def module_map() -> str:
    """The map as it is now, in Markdown."""
    beside = [f"- {_line(PACKAGE / name)}" for name in ("pipeline.py", "__init__.py", "__main__.py")]
    sections = [line for name in FLOW for line in _section(PACKAGE / name)]
    return "\n".join([*sections, "### Beside the folders\n", *beside, ""])


def shown_map() -> str:
    """The map as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def _section(folder: Path) -> Iterator[str]:
    yield f"### `{folder.relative_to(PACKAGE).as_posix()}/`\n"
    yield _first_sentence(folder / "__init__.py") + "\n"
    yield from (f"- {_line(path)}" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py")
    yield ""
    for inner in sorted(folder.glob("*/__init__.py")):
        yield from _section(inner.parent)


def _line(path: Path) -> str:
    return f"`{path.name}`: {_first_sentence(path)}"


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub("``", "`", " ".join(text.partition("\n\n")[0].split()))


if __name__ == "__main__":
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + begin + module_map() + END + rest.partition(END)[2], encoding="utf-8")
