"""Hostile names of columns, files, rules and indicators are names and no more: on card, report, summary and Hub."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
import yaml
from browser import opened
from datasets import load_dataset
from hostile_rows import FORGED, LINES, MARKDOWN, MARKERS, MARKUP, PIECES, TEMPLATES
from markdown_it import MarkdownIt
from verifying import FAILED, REPO, ROWS

from im_datasets import mine, push_selected, verify
from im_datasets.cli.main import main
from im_datasets.cli.printing import print_pushed, print_summary, print_verification, summarise
from im_datasets.common.untrusted import HIDDEN
from im_datasets.data.columns import Columns
from im_datasets.indicators import FunctionIndicator
from im_datasets.report.card_blocks import find_blocks
from im_datasets.rules.linear import LinearRule

NAMES = [piece for piece in PIECES if len(piece) < 300 and not re.search("[\0\ud800-\udfff]", piece)]
NAMES += ["im_log_loss ", "IM_ROW", "іnstruction", "output\u200b", "x" * 2000]
QUESTION, ANSWER = f"{MARKUP[3]}{LINES[0]}", f"{TEMPLATES[0]}|{MARKDOWN[1]}{MARKERS[0]}"
SCORE = f"im_{MARKUP[1]}{LINES[0]}$\\frac{{"
FILE = f"{MARKUP[3]}{LINES[0]}\x1b[2J\u202e{{{{7*7}}}} ![x](a).jsonl".replace("/", "")
MARKDOWN_READER = MarkdownIt("commonmark").enable(["table", "strikethrough", "linkify"])


def lengths(batch):
    """A score that costs nothing."""
    return {SCORE: [len(text) for text in batch["response"]]}


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    rows = [{QUESTION: x, ANSWER: y, **dict.fromkeys(NAMES, MARKUP[0])} for x, y in ROWS]
    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    rule = {
        "schema_version": 1,
        "name": MARKUP[0] + LINES[0],
        "title": MARKUP[3] + LINES[0],
        "intercept": 1e50,
        "terms": [{"column": SCORE, "coefficient": -1.0}],
        "target": MARKDOWN[1] + LINES[0],
        "aggregation": MARKERS[2],
        "indicators": {},
        "provenance": {MARKUP[0] + LINES[0]: MARKUP[1], "deep": {LINES[0]: [*MARKUP, *MARKERS]}},
        "caveats": [*MARKUP, *MARKDOWN, *MARKERS, *LINES],
    }
    return mine(
        folder / FILE,
        folder / "mined",
        rule=LinearRule.from_dict(rule),
        indicators=[FunctionIndicator(function=lengths, names=(SCORE,))],
        columns=Columns(instruction=QUESTION, response=ANSWER),
        top_k=4,
        per_group=(NAMES[0], 5),
        license="mit",
        language="en",
        command=["im-datasets", "mine", FILE, *MARKUP, *LINES],
        progress=False,
    )


def test_source_rule_and_columns_are_read_as_they_are_called(mined):
    assert mined.record.source["files"] == [FILE]
    assert set(NAMES) < set(mined.selection.kept.column_names)
    assert mined.record.rule.columns == (SCORE,)


@pytest.mark.browser
def test_report_shows_names_and_runs_none(browser, mined):
    page = opened(browser, mined.folder / "report.html")
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
    assert page.problems == []
    assert len(page.requests_made) == 1
    strange = "img, iframe, link, base, form, plaintext, animate, a[href]:not([href^='#'])"
    assert page.evaluate("(s) => document.querySelectorAll(s).length", strange) == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    page.close()


def card_problems(card):
    """What a card holds besides text: HTML, links and images that are not the template's."""
    front, body = card[4:].split("\n---\n", 1)
    tokens = MARKDOWN_READER.parse(body)
    inner = [child for token in tokens for child in token.children or ()]
    html = [token.content.strip() for token in tokens if token.type == "html_block"]
    html += [child.content for child in inner if child.type == "html_inline"]
    problems = [text for text in html if not re.fullmatch(r"<!-- (im-datasets:(begin|end) \w+ )?-->", text)]
    problems += [
        child.attrs["src"] for child in inner if child.type == "image" and not child.attrs["src"].startswith("figures/")
    ]
    problems += [child.attrs["href"] for child in inner if child.type == "link_open"]
    return problems, yaml.safe_load(front), body


def test_card_shows_names_as_text_and_has_its_own_markers_only(mined):
    problems, front, body = card_problems((mined.folder / "README.md").read_text())
    assert problems == []
    assert set(front) == {"language", "license", "size_categories", "tags", "configs"}
    assert list(find_blocks(body)) == ["summary", "selection", "provenance"]
    assert body.count("<!-- im-datasets:") == 6
    lines = [line for line in body.splitlines() if line.startswith("Kept ")]
    assert [line[:11] for line in lines] == ["Kept 4 of 9"]
    assert HIDDEN.search(body) is None


def printed(call, *arguments):
    with redirect_stdout(StringIO()) as out:
        call(*arguments)
    return out.getvalue()


def test_summary_has_no_line_of_a_name(mined, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = printed(print_summary, summarise(mined)).splitlines()
    assert sum(line.startswith("Kept ") for line in lines) == 1
    assert FORGED not in lines
    assert [line for line in lines if HIDDEN.search(line) or "\x1b" in line] == []


def test_names_come_back_from_the_hub_and_print_no_line(hub, mined, quick_figures, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "400")
    pushed = push_selected(mined.selection, REPO, license="mit", language="en", include_dropped=True)
    problems, front, _ = card_problems(hub.store.read(REPO, "README.md").decode())
    assert problems == []
    for info in front["dataset_info"]:
        told = [feature["name"] for feature in info["features"]]
        assert told == getattr(mined.selection, info["config_name"]).column_names
        loaded = load_dataset(REPO, info["config_name"], split="train", cache_dir=tmp_path)
        assert loaded.column_names == told
    verification = verify(REPO)
    assert [check for check in verification.checks if check.outcome == FAILED] == []
    for text in (printed(print_pushed, pushed), printed(print_verification, verification)):
        lines = text.splitlines()
        assert FORGED not in lines
        assert [line for line in lines if HIDDEN.search(line) or "\x1b" in line] == []
        assert not any(line.startswith(("Kept ", "passed       files       forged")) for line in lines)


HOSTILE = f"{MARKUP[0]}{LINES[0]}\x1b[2J\u202e"
REFUSED = {
    "no response": ([{HOSTILE: "a"}], []),
    "two responses": ([{"instruction": "a", "output": "b", "response": "c", HOSTILE: "d"}], []),
    "affixes": ([{"instruction": "a", f"output_{HOSTILE}": "b", HOSTILE: "d"}], []),
    "group": ([{"instruction": "a", "output": "b"}], ["--per-group", f"{HOSTILE}=1"]),
    "mapped": ([{"instruction": "a", "output": "b"}], ["--columns", f"instruction={HOSTILE},response=output"]),
    "mapping": ([{"instruction": "a", "output": "b"}], ["--columns", HOSTILE]),
    "row number": ([{"instruction": "a", "output": "b", "im_row": HOSTILE}], []),
    "half a pair": ([{"instruction": "a", "output": "b", "\ud800": "c"}], []),
    "nothing": ([{"instruction": "a", "output": "b", "\0": "c"}], []),
    "no rows": ([], []),
    "no object": ([[HOSTILE]], []),
    "rule": ([{"instruction": "a", "output": "b"}], ["--rule", HOSTILE]),
    "split": ([{"instruction": "a", "output": "b"}], ["--split", HOSTILE]),
    "language": ([{"instruction": "a", "output": "b"}], ["--language", HOSTILE]),
    "licence": ([{"instruction": "a", "output": "b"}], ["--license", HOSTILE]),
    "option": ([{"instruction": "a", "output": "b"}], [f"--{HOSTILE}"]),
    "word": ([{"instruction": "a", "output": "b"}], [HOSTILE]),
    "number": ([{"instruction": "a", "output": "b"}], ["--limit", HOSTILE]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, monkeypatch, case):
    rows, options = REFUSED[case]
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "im-datasets",
        "mine",
        str(tmp_path / FILE),
        "--top-k",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr("sys.argv", words + options)
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in {1, 2}
    assert out.getvalue() == ""
    # A column that is looked at after scoring is refused below the bar.
    assert re.fullmatch("(\rScoring[^\n]+\n)?im-datasets: error: [^\n]+\n", err.getvalue())
    assert HIDDEN.search(err.getvalue()) is None
    assert "\x1b" not in err.getvalue()
    assert ("Unknown option" in err.getvalue()) == (case == "option")
