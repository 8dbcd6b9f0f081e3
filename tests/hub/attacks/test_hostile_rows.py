"""Ten thousand hostile rows through columns, indicators, selection, files, report and summary: texts stay texts."""

import json
import re
import socket
import threading
import time
import unicodedata
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import pyarrow.parquet as pq
import pytest
from browser import opened
from hostile_rows import LISTENER, PIECES, hostile_rows

from im_datasets.cli import printing
from im_datasets.cli.printing import print_summary, summarise
from im_datasets.common.untrusted import show_controls, shown
from im_datasets.data.columns import Columns
from im_datasets.data.conversations import mark_half_pairs
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import read_source
from im_datasets.indicators import MTLD, FunctionIndicator, Length
from im_datasets.indicators.quality_features import text_features
from im_datasets.pipeline import Mined
from im_datasets.report.page import LONGEST, render_report
from im_datasets.report.result_folder import describe_selection, load_result, write_result
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.score import score
from im_datasets.selection.contamination import EvaluationIndex
from im_datasets.selection.select import select

RULE = {
    "schema_version": 1,
    "name": "surface",
    "title": "Made for hostile rows",
    "intercept": 0.0,
    "terms": [{"column": "im_mtld", "coefficient": -1.0}, {"column": "my_surface", "coefficient": 0.5}],
    "target": "none",
    "aggregation": "applied to each row",
    "indicators": {},
    "provenance": {},
    "caveats": [],
}


UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}
JOINED = re.compile(r"(?<=[^\x00-\x7f])\u200d(?=[^\x00-\x7f])")
"""Joiners as emoji and Indic scripts need them."""


def surface(batch):
    """The surface features of every pair, as one number."""
    pairs = zip(batch["instruction"], batch["response"], strict=True)
    return {"my_surface": [sum(text_features(*pair)) for pair in pairs]}


@pytest.fixture(scope="module")
def listener():
    """A port of this machine, and who connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        callers, over = [], threading.Event()

        def wait():
            while not over.is_set():
                try:
                    callers.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=wait)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", callers
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def rows(listener):
    place = LISTENER.removeprefix("http://").partition("/")[0]
    return [tuple(text.replace(place, listener[0]) for text in row) for row in hostile_rows()]


@pytest.fixture(scope="module")
def mined(rows, tmp_path_factory):
    """The rows read from a file, scored without a model, selected and written."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"instruction": x, "output": y}) + "\n" for x, y in rows))
    source = read_source(SourceRequest(file))
    indicators = [MTLD(), Length(), FunctionIndicator(function=surface, names=("my_surface",))]
    rule = LinearRule.from_dict(RULE)
    scored = score(source.dataset, rule, indicators=indicators, describe=False, source=source.info, progress=False)
    evaluation = [instruction for instruction, _ in rows[:: len(rows) // 50] if instruction.strip()]
    selection = select(scored.dataset, fraction=0.4, exclude_contaminated=evaluation, columns=scored.columns)
    out = folder / "mined"
    out.mkdir()
    record = replace(scored.record, selection=describe_selection(selection))
    record = write_result(out, selection, record, "mit", "en")
    return Mined(out, record, selection, repeated=False)


def as_read(text):
    """A text as a file gives it: two halves of a surrogate pair side by side are one character, others are marked."""
    return mark_half_pairs(json.loads(json.dumps(text)))


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        (Columns(instruction="a", response="b"), lambda x, y: {"a": x, "b": y}),
        (Columns(instruction="a", input="c", response="b", system="d"), lambda x, y: {"a": x, "b": y, "c": y, "d": x}),
        (Columns(instruction="a", history="h", response="b"), lambda x, y: {"a": x, "b": y, "h": [[x, y], [y, x]]}),
        (
            Columns(messages="m"),
            lambda x, y: {"m": [{"role": "user", "content": x}, {"role": "assistant", "content": y}]},
        ),
        (Columns(messages="m"), lambda x, y: {"m": [{"role": x, "content": y}, {"from": y, "value": x}, {x: y}]}),
        (Columns(messages="m"), lambda x, y: {"m": x + y}),
        (Columns(messages="m", response="b"), lambda x, y: {"m": x, "b": [{"role": "assistant", "content": y}]}),
        (Columns(instruction="a", instances="i"), lambda x, y: {"a": x, "i": [{"input": y, "output": x}]}),
    ],
    ids=lambda value: value.layout if isinstance(value, Columns) else "",
)
def test_rows_of_every_layout_give_a_pair_or_a_reason(rows, columns, layout):
    table = [layout(x, y) for x, y in rows]
    batch = {name: [row[name] for row in table] for name in table[0]}
    pairs = columns.pairs(batch)
    assert len(pairs) == len(rows)
    assert all(bool(reason) != bool(text) for reason, text in zip(pairs.reasons, pairs.responses, strict=True))
    assert len(columns.questions(batch)) == len(rows)


LINEAR = {
    "pairs": lambda text: Columns(instruction="a", response="b").pairs({"a": [f"{text}<x"], "b": [f"<{text}}}}}x"]}),
    "conversation": lambda text: Columns(messages="m").pairs({"m": [text, f"[{text}", f'{{"a":{text}']}),
    "surface": lambda text: text_features(text, f"{text}x"),
    "mtld": lambda text: MTLD()({"instruction": ["a"], "output": [text]}),
    "length": lambda text: Length()({"instruction": ["a"], "output": [text]}),
    "contamination": lambda text: EvaluationIndex.build(["a b"]).is_repeated_by(text),
    "shown": lambda text: shown(text, 10**6),
}


@pytest.mark.parametrize("stage", LINEAR)
def test_time_of_a_row_grows_with_its_length_and_no_faster(stage):
    small = [piece for piece in PIECES if 0 < len(piece) < 12]
    small += [
        ".",
        ". ",
        ")",
        "1. ",
        "- ",
        "a ",
        "<image>",
        "{{a ",
        "\n ",
        " \n",
        "é",
        "\uff9e\u0316",
        "[image ",
        '"',
        "’",
    ]
    LINEAR[stage]("warm")
    slow = {}
    for piece in small:
        clock = time.process_time()
        LINEAR[stage](piece * (30_000 // len(piece)))
        slow[piece] = time.process_time() - clock
    # The quadratic patterns that were here took 2 to 10 seconds.
    assert {piece: spent for piece, spent in slow.items() if spent > 1} == {}


def test_every_row_is_scored_or_has_a_reason(rows, mined):
    kept, dropped = mined.selection.kept, mined.selection.dropped
    assert len(kept) + len(dropped) == len(rows)
    assert len(kept) > 3000
    assert all(dropped["im_reason"])
    assert [line for line in map(str.splitlines, mined.selection.reasons) if len(line) != 1] == []


def test_files_hold_the_rows_as_they_were_and_read_back(rows, mined):
    for name in ("kept", "dropped"):
        table = pq.read_table(mined.folder / f"{name}.parquet").to_pydict()
        for number, *texts in zip(table["im_row"], table["instruction"], table["output"], strict=True):
            assert texts == [as_read(text) for text in rows[number]]
    assert ScoringRecord.load(mined.folder / "record.json") == mined.record
    assert load_result(mined.folder).reasons == mined.selection.reasons


def test_summary_shows_each_row_in_one_line_and_no_row_makes_another(rows, mined, monkeypatch):
    # Best and worst rows together are then all of them.
    monkeypatch.setattr(printing, "SHOWN", len(rows) // 2)
    monkeypatch.setenv("COLUMNS", "90")
    summary = {**summarise(mined), "folder": "mined"}
    assert len(summary["best"]) == len(summary["worst"]) == len(rows) // 2
    with redirect_stdout(StringIO()) as out:
        print_summary(summary)
    lines = out.getvalue().split("\n")
    hidden = [line for line in lines if any(unicodedata.category(char) in UNSEEN for char in JOINED.sub("", line))]
    assert hidden == []
    ours = [line for line in lines if not re.fullmatch("[│┃].*[│┃]|[┏┡└].*[┓┩┘]", line)]
    reasons = [f"  dropped {count:>9,}  {reason}" for reason, count in mined.selection.reasons.items()]
    half = len(rows) // 2
    titles = [*reasons, f"The {half} best rows", f"The {half} worst rows"]
    assert ours[0] == ""
    assert ours[1].startswith("Kept ")
    assert [line.rstrip() for line in ours[2:-3]] == titles
    assert [line.split()[0] for line in ours[-3:-1]] == ["Took", "Written"]
    assert ours[-1] == ""
    assert len(lines) - len(ours) == 2 * (half + 4)


@pytest.fixture(scope="module")
def page(rows, mined, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(mined.selection, mined.record, rows_per_table=len(rows)), encoding="utf-8")
    return path


@pytest.mark.browser
def test_report_shows_the_texts_and_neither_runs_nor_fetches_any(browser, rows, mined, page, listener):
    tab = opened(browser, page)
    tab.click("[data-place=all]")
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.__pwned") is None
    assert tab.problems == []
    assert tab.requests_made == [page.as_uri()]
    assert listener[1] == []
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    strange = "img, iframe, object, embed, link, base, form, video, audio, plaintext, animate, a[href]:not([href^='#'])"
    assert tab.evaluate("(s) => [...document.querySelectorAll(s)].map((e) => e.outerHTML.slice(0, 80))", strange) == []
    handled = "(e) => [...e.attributes].some((a) => a.name.startsWith('on'))"
    assert tab.evaluate(f"[...document.querySelectorAll('*')].filter({handled}).length") == 0
    shown = set(tab.evaluate("[...document.querySelectorAll('#rows .said')].map((e) => e.textContent)"))
    scored = [row for row in [*mined.selection.kept, *mined.selection.dropped] if row["im_rank"]]
    assert len(scored) > 7000
    assert [row for row in scored if show_controls(row["output"][:LONGEST]) not in shown] == []
    tab.close()
