"""README and docs do what they say: their snippets run, their links lead somewhere, their tables and maps are true."""

import re
import runpy
from dataclasses import fields
from importlib import import_module

import pytest
from hub_server.transcript import EVENTS
from module_map import module_map, shown_map
from pages import PAGES, README, ROOT, Reader, Snippet, snippets, stable

from im_datasets.indicators import KNNDistance
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.score import descriptive_indicators

DOCS = ROOT / "docs"
OTHER_PAGES = [*sorted(ROOT.glob("examples/**/*.md")), ROOT / "tests/benchmarks/README.md"]
"""Pages whose snippets are not run: they are about clusters, data from elsewhere, or hours."""

NEEDS = re.compile(r"GPU|\bHub\b|hours|package index|cluster|Chromium")
"""What a snippet that the suite leaves out must be said to need."""

FORMATS = {
    "`record.json`": ["scoring.record.ScoringRecord", "scoring.record.IndicatorRecord"],
    "`instructmining.json`": ["hub.manifest.Manifest", "report.configs.Config", "report.configs.Published"],
    "A rule": ["rules.linear.LinearRule", "rules.linear.Term"],
    "`runs.jsonl`": ["calibration.runs.Run"],
}
"""Section of ``file-formats.md`` → what it describes, in its order."""


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def section_of(name, heading):
    return text_of(name).partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_snippets_of_a_page_run_one_after_the_other(page, tmp_path, hub):
    with Reader(tmp_path, hub, EVENTS) as reader:
        for snippet in snippets(page.read_text(encoding="utf-8")):
            if snippet.runs:
                reader.run(snippet)


def test_reader_finds_the_names_of_an_earlier_snippet_and_says_which_one_fails(tmp_path, hub):
    with Reader(tmp_path, hub, {"# later": lambda server: server.store.put("me/x", {"a": b"b"})}) as reader:
        reader.run(Snippet("python", "", "x = 1", ""))
        reader.run(Snippet("python", "", "print(x + 1)", ""))
        reader.run(Snippet("bash", "", "test -d examples\necho 1 > made", ""))
        reader.run(Snippet("console", "", "$ cat made\n1\n# later\n$ false\n(exit status 1)\n", ""))
        assert hub.store.read("me/x", "a") == b"b"
        with pytest.raises(AssertionError, match="false"):
            reader.run(Snippet("bash", "", "false\ntrue", ""))
        with pytest.raises(AssertionError):
            reader.run(Snippet("console", "", "$ cat made\n2\n", ""))
        with pytest.raises(AssertionError, match="NameError: name 'y' is not defined"):
            reader.run(Snippet("python", "", "print(y)", ""))


def test_snippets_are_told_with_language_mark_and_introduction():
    text = "# Page\n\nThis\nneeds a GPU:\n\n```bash no-run\nls\n```\n\nNow\n\n```python\nx = 1\n\ny = 2\n```\n"
    assert snippets(text) == [
        Snippet("bash", "no-run", "ls\n", "This\nneeds a GPU:"),
        Snippet("python", "", "x = 1\n\ny = 2\n", "Now"),
    ]
    assert [snippet.runs for snippet in snippets(text)] == [False, True]


def test_stable_hides_sizes_and_commits_only():
    printed = "  add           24,071  kept/train-00000-of-00001.parquet\nCommitted c1dd2de3 to x\n50 kept\n"
    assert (
        stable(printed) == "  add           SIZE  kept/train-00000-of-00001.parquet\nCommitted COMMIT to x\n50 kept\n"
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_snippet_that_is_not_run_is_said_to_need_something(page):
    left_out = [snippet for snippet in snippets(page.read_text(encoding="utf-8")) if "no-run" in snippet.marks]
    assert [snippet.code for snippet in left_out if not NEEDS.search(snippet.introduction)] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    for link in filter(None, (one or other for one, other in links)):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short_and_its_first_screen_holds_the_two_commands():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    screen = "\n".join(lines[:40])
    assert "bash examples/quickstart.sh" in screen
    assert "bash tests/run.sh" in screen
    assert "bash tests/run.sh" in (ROOT / ".ci/run").read_text()


@pytest.mark.slow
def test_quickstart_runs_once_the_environment_is_there(tmp_path, hub):
    with Reader(tmp_path, hub, EVENTS) as reader:
        reader.run(Snippet("bash", "", "bash examples/quickstart.sh", ""))
    assert (tmp_path / "mined" / "report.html").is_file()


def test_quickstart_command_is_the_readmes():
    lines = "\n".join(snippet.code for snippet in snippets(README.read_text(encoding="utf-8"))).splitlines()
    line = next(line for line in lines if line.startswith("im-datasets mine"))
    assert line in (ROOT / "examples/quickstart.sh").read_text().replace('im-datasets" mine', "im-datasets mine")


def test_picture_is_of_a_fair_size():
    picture = (DOCS / "report.png").read_bytes()
    assert len(picture) <= 250_000
    assert int.from_bytes(picture[16:20]) == 1200


def test_readme_and_contents_name_every_page():
    for page in DOCS.glob("*.md"):
        if page.name != "README.md":
            assert f"](docs/{page.name})" in README.read_text(encoding="utf-8")
            assert f"]({page.name})" in text_of("README.md")


def test_constraints_pin_torch_and_every_direct_dependency():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / ".ci/constraints.txt").read_text(), flags=re.MULTILINE))
    pins = {name.lower().replace("_", "-"): pin for name, pin in pins.items()}
    wanted = re.findall(r'^    "([\w-]+)[>=<]', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert pins["torch"] == "2.13.0"
    assert len(wanted) > 10
    assert [name for name in wanted if name not in pins] == []


def test_readme_lays_out_the_folders():
    layout = next(snippet for snippet in snippets(README.read_text(encoding="utf-8")) if snippet.language == "text")
    listed = set(re.findall(r"^  ([\w]+)(?:/|\.py) ", layout.code, flags=re.MULTILINE))
    small = {"__init__", "__main__", "py", "common"}
    assert (
        listed == {path.stem for path in (ROOT / "im_datasets").iterdir() if not path.name.startswith("__py")} - small
    )


@pytest.mark.parametrize("page", [README, DOCS / "indicators.md"], ids=name_of)
def test_every_rule_and_computed_column_is_described(page):
    text = page.read_text(encoding="utf-8")
    assert [name for name in LinearRule.names() if f"`{name}`" not in text] == []
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []


def test_indicators_page_says_which_texts_the_neighbour_distance_compares():
    line = next(line for line in text_of("indicators.md").splitlines() if line.startswith("| `im_knn_6`"))
    describing = next(indicator for indicator in descriptive_indicators() if isinstance(indicator, KNNDistance))
    assert f'text="{KNNDistance().text}"' in line
    assert f'`mine` describes rows with `text="{describing.text}"`' in line


@pytest.mark.parametrize("heading", FORMATS)
def test_every_field_of_a_file_is_described_in_its_order(heading):
    described = re.findall(r"^\| `(\w+)` \|", section_of("file-formats.md", heading), flags=re.MULTILINE)
    kinds = [name.rpartition(".") for name in FORMATS[heading]]
    classes = [getattr(import_module(f"im_datasets.{module}"), name) for module, _, name in kinds]
    assert described == [field.name for kind in classes for field in fields(kind)]


def test_security_page_states_every_bound_as_it_is():
    pattern = r"^\| .* \| ([\d,e]+) \| `([A-Z_]+)` in `([\w/]+)\.py` \|$"
    stated = re.findall(pattern, section_of("security.md", "Bounds"), flags=re.MULTILINE)
    assert {"TEXT_BYTES", "DEPTH", "YAML_NODES", "LINE", "MESSAGE", "LARGEST"} <= {name for _, name, _ in stated}
    for bound, name, path in stated:
        module = import_module(f"im_datasets.{path.replace('/', '.')}")
        assert float(bound.replace(",", "")) == getattr(module, name), name


def test_security_page_names_every_file_of_attacks():
    named = re.findall(r"`(test_\w+\.py)` \|$", section_of("security.md", "Attacks that are tried"), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / "tests/hub/attacks").glob("test_*.py"))


def test_architecture_page_shows_the_table_of_allowed_imports():
    allowed = runpy.run_path(str(ROOT / "tests/test_layout.py"))["ALLOWED"]
    section = section_of("architecture.md", "What may import what")
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \| .* \| (.*) \|$", section, flags=re.MULTILINE)
    assert [(name, set(re.findall(r"`(\w+)`", cell))) for name, cell in rows] == list(allowed.items())


def test_architecture_page_names_every_folder_and_module_as_they_name_themselves():
    assert shown_map() == module_map(), "python tests/support/module_map.py brings the page up to date"
    package = ROOT / "im_datasets"
    files = {path.relative_to(package) for path in package.rglob("*.py")}
    assert shown_map().count("\n### `") + 1 == len({path.parent for path in files}) - 1
    assert shown_map().count("\n- `") == len(files) - (len({path.parent for path in files}) - 1)


def test_architecture_page_names_files_that_are_there():
    before, _, rest = text_of("architecture.md").partition("## Modules")
    named = re.findall(r"`([\w./]+)`", before + rest.partition("## Beside")[2])
    roots = (ROOT, ROOT / "im_datasets")
    paths = {name for name in named if "/" in name or name.endswith((".py", ".pyi"))}
    assert len(paths) > 40
    assert [name for name in sorted(paths) if not any((root / name).exists() for root in roots)] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_paths_and_modules_of_the_package_are_there(page):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"\bim_datasets/[\w./]*\w", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = re.findall(r"^from (im_datasets[\w.]*) import", text, flags=re.MULTILINE)
    modules += re.findall(r"`(im_datasets(?:\.\w+){2,})`", text)
    for module in modules:
        import_module(module)
