"""The report: complete without its script, the same every time, safe whatever a row holds; seen in a browser."""

import math
import re
import time
from html import unescape

import numpy as np
import pytest
from browser import opened
from report_sample import RULE, make_record, make_scores, make_selection

from im_datasets.data.columns import Columns
from im_datasets.report.page import LONGEST, SHORT, Text, _add_bars, _chosen, render_report, write_report
from im_datasets.report.statistics import Scores
from im_datasets.scoring.record import IndicatorRecord

NASTY = [
    "<script>window.owned = 1</script>",
    "</script><script>window.owned = 1</script>",
    '"><img src=x onerror="window.owned = 1">',
    "'><svg onload=window.owned=1>",
    "{{7*7}} {% raw %} ${7*7}",
    "<!-- --> ]]> &lt;b&gt; &amp;",
    "שלום עולם \u202e evil \u2066 مرحبا",
    "👩‍👩‍👧‍👦 🇺🇳 e\u0301",
    "line\u2028separator\u2029here",
    "nul\x00 bell\x07 esc\x1b[31m del\x7f c1\x9b end",
    "</textarea></style></title><plaintext>",
    "x" * 5000,
    "javascript:window.owned=1",
]
PICTURES = str.maketrans({0: "␀", 7: "␇", 0x1B: "␛", 0x7F: "␡", 0x9B: "\ufffd"})


def page_of(tmp_path, selection, record=None, name="report.html", **settings):
    return write_report(selection, record or make_record(), tmp_path / name, **settings)


@pytest.fixture(scope="module")
def html():
    return render_report(make_selection(), make_record())


def test_render_report_says_when_a_source_was_read_in_part(html):
    record = make_record(source={**make_record().source, "limit": 24, "rows": 24, "seed": None})
    limited = render_report(make_selection(), record)
    assert "24 <small>read, out of the first 24 rows of the source</small>" in limited
    assert "24 <small>read</small>" in html


def test_render_report_tells_what_was_kept_and_why(html):
    text = unescape(re.sub(r"<[^>]+>", " ", html))
    assert "Kept 8 of 24 rows (33.3 %)" in text
    assert "Chosen by the rule sample: the lowest scores, up to a cut at" in text
    for caveat in RULE["caveats"]:
        assert caveat in text
    for expected in ("below the cut", "near-duplicate", "unscorable: empty response", "im_log_loss = 0.5 − 1 ×"):
        assert expected in text
    assert "im-datasets mine sample.json --top-k 8 --out 'my results'" in text
    assert "no limit and 100" in text
    assert "tiny-encoder" in text
    assert "300 MiB" in text


def test_render_report_has_the_sections_in_the_order_of_the_question(html):
    names = ("scores", "drops", "indicators", "correlations", "lengths", "rule", "rows", "reproduce")
    places = [html.index(f'<section id="{name}"') for name in names]
    assert places == sorted(places)
    assert html.index('class="callout"') < places[0]


def test_render_report_is_the_same_every_time(html):
    assert render_report(make_selection(), make_record()) == html


def test_render_report_names_no_address_to_load_from(html):
    assert not re.findall(r'(?:src|href|action|data)="(?!#)[^"]*"', html)
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_render_report_shows_each_terms_part_of_the_score(html):
    selection = make_selection()
    rows = re.findall(r"<tr role=\"row\" data-places.*?</tr>", html, re.DOTALL)
    first = next(row for row in rows if 'data-key="rank" data-sort="1"' in row)
    parts = {key: float(value) for key, value in re.findall(r'data-key="(\w+)" data-sort="([^"]+)"', first)}
    best = selection.kept[0]
    assert parts["score"] == best["im_log_loss"]
    assert parts["term0"] == -best["im_quality"]
    assert parts["term1"] == pytest.approx(0.01 * min(best["im_output_length"], 100))
    assert 0.5 + parts["term0"] + parts["term1"] == pytest.approx(parts["score"])


def test_render_report_writes_a_dash_for_a_row_without_a_score(html):
    unscored = [row for row in re.findall(r"<tr role=\"row\" data-places.*?</tr>", html, re.DOTALL)
                if "No pair could be read" in row]  # fmt: skip
    assert len(unscored) == 2
    for row in unscored:
        assert row.count('data-sort=""') == 4
        assert "empty response" in row


def test_a_shortfall_is_told():
    selection = make_selection()
    selection.settings["shortfall"] = 5
    assert "5 rows fewer than asked for" in render_report(selection, make_record())


def test_bars_compare_a_term_with_the_average_row():
    rows = [{"terms": [{"added": 1.0}, {"added": -4.0}]}, {"terms": [{"added": 3.0}, {"added": math.nan}]}]
    _add_bars(rows, [2.0, -2.0])
    assert [[term["bar"] for term in row["terms"]] for row in rows] == [[-0.5, -1.0], [0.5, 0.0]]


def test_long_lists_are_shortened_with_their_count():
    files = [f"part-{n}.json" for n in range(25)]
    page = render_report(make_selection(), make_record(source={"id": "x", "files": files}))
    assert "part-19.json" in page
    assert "part-20.json" not in page
    assert "and 5 more" in page


def test_chosen_rows_are_the_best_the_worst_and_those_around_the_cut():
    selection = make_selection(300, 100, unscorable=5)
    scores = Scores.of(selection)
    groups: dict[str, set[int]] = {}
    for place, (is_kept, index) in _chosen(selection, scores, 10):
        side = selection.kept if is_kept else selection.dropped
        groups.setdefault(place, set()).add(side[index]["im_rank"])
    assert groups["best"] == set(range(1, 11))
    assert groups["worst"] == set(range(286, 296))
    # 100 rows and one duplicate lie up to the cut: ranks 97..101 are the last kept, 102..106 the first dropped.
    assert groups["borderline"] == set(range(97, 107))
    assert 0 in groups["reason"]


def test_ties_at_the_cut_are_not_said_to_be_dropped_for_another_reason():
    scores = make_scores(12) | {"im_log_loss": np.array([0.0] * 8 + [1.0] * 4)}
    tied = render_report(make_selection(12, 4, duplicates=0, scores=scores), make_record())
    assert "No row with a score below the cut was dropped." in tied
    mixed = render_report(make_selection(12, 4, duplicates=1, scores=scores), make_record())
    assert "1 rows with a score up to the cut were dropped for another reason." in mixed


@pytest.mark.parametrize(
    ("rows", "keep", "unscorable"), [(1, 1, 0), (1, 0, 0), (1, 0, 1), (5, 0, 5), (3, 3, 0), (2, 1, 0)]
)
def test_render_report_stands_tiny_selections(rows, keep, unscorable):
    page = render_report(make_selection(rows, keep, unscorable=unscorable, duplicates=0), make_record())
    assert f"of {rows} rows" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>|<style.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("value", [math.nan, 2.0])
def test_render_report_stands_an_indicator_that_is_all_nan_or_constant(value):
    scores = make_scores(12) | {"im_mtld": np.full(12, value)}
    page = render_report(make_selection(12, 4, unscorable=0, scores=scores), make_record())
    assert "im_mtld" in page


def test_render_report_says_so_when_lengths_were_not_measured():
    scores = {"im_log_loss": np.arange(6.0), "im_quality": -np.arange(6.0)}
    rule = RULE | {"terms": [{"column": "im_quality", "coefficient": -1.0}], "intercept": 0.0}
    page = render_report(make_selection(6, 2, scores=scores), make_record(rule=rule, command=None))
    assert "Lengths were not measured" in page
    assert "started from Python" in page


@pytest.mark.parametrize(
    ("text", "short", "is_cut"),
    [("short", "short", 0), ("a\nb", "a\nb", 0), ("w " * 200, ("w " * 200)[: SHORT - 1] + "…", 0)],
)
def test_text_is_shortened_only_when_it_is_long(text, short, is_cut):
    shown = Text.of(text)
    assert (shown.short, shown.cut) == (short, is_cut)
    assert (shown.full or shown.short) == text


def test_text_says_what_it_leaves_out():
    shown = Text.of("y" * (LONGEST + 5))
    assert (len(shown.full), shown.length, shown.cut) == (LONGEST, LONGEST + 5, LONGEST)


def test_write_report_leaves_one_file(tmp_path):
    path = page_of(tmp_path, make_selection())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_write_report_of_many_rows_takes_seconds(tmp_path):
    rows = 52_000
    selection = make_selection(rows, 2000, unscorable=30, texts=[("question", "answer")] * rows)
    clock = time.process_time()
    page_of(tmp_path, selection)
    assert time.process_time() - clock < 20


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    rows = len(NASTY)
    texts = [(f"instruction {text}", f"response {text}") for text in NASTY]
    tag = NASTY[2]
    scores = make_scores(rows)
    extra = {tag: ["1"] * rows, NASTY[0]: ["the last"] * rows}
    selection = make_selection(rows, 4, unscorable=0, texts=texts, scores=scores, reason=NASTY[0], extra=extra)
    selection.settings[NASTY[1]] = NASTY[2]
    rule = RULE | {
        "name": NASTY[0],
        "title": NASTY[1],
        "target": NASTY[2],
        "provenance": {NASTY[0]: NASTY[1], "deep": {NASTY[2]: [NASTY[3]]}},
        "caveats": NASTY,
        "terms": [{"column": tag, "coefficient": 2.0}, RULE["terms"][0]],
    }
    record = make_record(
        rule=rule,
        source={"kind": NASTY[0], "id": NASTY[1], "files": NASTY},
        columns=Columns(instruction="instruction", response="output", turn=NASTY[0]),
        indicators=[IndicatorRecord(NASTY[0], NASTY[1], [], {NASTY[2]: NASTY[3]}, {"id": NASTY[0]})],
        command=["im-datasets", *NASTY],
        versions={NASTY[0]: NASTY[1]},
        seconds={NASTY[2]: 1.0},
        package_version=NASTY[2],
        created=NASTY[1],
    )
    return page_of(tmp_path_factory.mktemp("hostile"), selection, record)


@pytest.mark.browser
def test_hostile_text_does_not_run_and_is_shown_literally(browser, hostile_page):
    page = opened(browser, hostile_page)
    page.click("[data-place=all]")
    page.wait_for_timeout(300)
    assert page.evaluate("window.owned") is None
    assert page.problems == []
    assert page.requests_made == [hostile_page.as_uri()]
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert (
        page.evaluate("document.querySelectorAll('img, iframe, object, plaintext, a[href]:not([href^=\"#\"])').length")
        == 0
    )
    assert page.evaluate("document.querySelectorAll('[onload], [onerror], [onclick]').length") == 0
    shown = set(page.evaluate("[...document.querySelectorAll('#rows .said')].map((e) => e.textContent)"))
    for text in NASTY:
        assert f"instruction {text}".translate(PICTURES) in shown
        assert f"response {text}".translate(PICTURES) in shown
    caveats = page.evaluate("[...document.querySelectorAll('.callout li')].map((e) => e.textContent)")
    assert caveats == [text.translate(PICTURES) for text in NASTY]
    page.close()


@pytest.mark.browser
def test_the_policy_stops_a_script_that_gets_in(browser, tmp_path):
    path = page_of(tmp_path, make_selection())
    broken = path.read_text().replace(
        "</main>", "<script>window.owned = 1</script><img src=x onerror='window.owned=1'></main>"
    )
    path.write_text(broken)
    page = opened(browser, path)
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in problem for problem in page.problems)
    assert page.evaluate("document.documentElement.className") == "js"
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("which", ["sample", "hostile"])
def test_nothing_is_wider_than_the_window(browser, tmp_path, hostile_page, width, which):
    path = hostile_page if which == "hostile" else page_of(tmp_path, make_selection(60, 20))
    page = opened(browser, path, viewport={"width": width, "height": 844})
    page.click("[data-place=all]")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.fixture
def rows_page(browser, tmp_path):
    page = opened(browser, page_of(tmp_path, make_selection(120, 40, unscorable=3), rows_per_table=10))
    yield page
    assert page.problems == []
    page.close()


def visible(page, key):
    cells = f"#rows tbody tr:not([hidden]) [data-key={key}]"
    texts = page.evaluate("(cells) => [...document.querySelectorAll(cells)].map((e) => e.dataset.sort)", cells)
    return [float(text) if text else None for text in texts]


@pytest.mark.browser
def test_groups_filter_the_rows(rows_page):
    assert visible(rows_page, "rank") == list(range(1, 11))
    rows_page.click("[data-place=worst]")
    assert visible(rows_page, "rank") == list(range(108, 118))
    assert rows_page.get_attribute("[data-place=worst]", "aria-pressed") == "true"
    assert rows_page.inner_text("#status").startswith("10 of ")
    rows_page.click("[data-place=all]")
    total = rows_page.evaluate("document.querySelectorAll('#rows tbody tr').length")
    assert rows_page.inner_text("#status") == f"{total} of {total} rows shown"


@pytest.mark.browser
def test_search_finds_texts_and_reasons(rows_page):
    rows_page.click("[data-place=all]")
    first = rows_page.evaluate("document.querySelector('#rows .said').textContent")
    number = re.search(r"\d+", first)[0]
    rows_page.fill("#search", f"NUMBER  {number}.")
    assert first in rows_page.inner_text("#rows tbody")
    assert 1 <= len(visible(rows_page, "rank")) < 5
    rows_page.fill("#search", "near-duplicate")
    assert visible(rows_page, "rank") == [2]
    rows_page.fill("#search", "no such words")
    assert visible(rows_page, "rank") == []
    assert rows_page.is_visible("#none")


@pytest.mark.browser
@pytest.mark.parametrize("key", ["rank", "score", "term0", "term1"])
def test_sorting_orders_the_rows_with_unscored_ones_last(rows_page, key):
    rows_page.click("[data-place=all]")
    head = f"[data-head={key}] button"
    if key != "rank":
        rows_page.click(head)
    up = visible(rows_page, key)
    assert rows_page.get_attribute(f"[data-head={key}]", "aria-sort") == "ascending"
    rows_page.focus(head)
    rows_page.keyboard.press("Enter")
    down = visible(rows_page, key)
    assert rows_page.get_attribute(f"[data-head={key}]", "aria-sort") == "descending"
    numbers = sorted(value for value in up if value is not None)
    missing = [None] * up.count(None)
    assert len(missing) == 3
    assert up == numbers + missing
    assert down == numbers[::-1] + missing


@pytest.mark.browser
def test_sorting_works_on_a_phone(browser, tmp_path):
    page = opened(browser, page_of(tmp_path, make_selection(60, 20)), viewport={"width": 390, "height": 844})
    page.select_option("#order", "score down")
    values = visible(page, "score")
    assert values == sorted(values, reverse=True)
    page.close()


@pytest.mark.browser
def test_the_whole_table_is_there_without_its_script(browser, tmp_path):
    page = opened(browser, page_of(tmp_path, make_selection()), java_script_enabled=False)
    assert page.locator("#rows tbody tr").count() == 24
    assert page.locator("#rows tbody tr").last.is_visible()
    assert not page.is_visible("#search")
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_follow_the_colour_scheme_and_text_is_readable(browser, tmp_path, scheme):
    page = opened(browser, page_of(tmp_path, make_selection()), color_scheme=scheme)
    colours = page.evaluate(
        """() => {
            const style = (e, name) => getComputedStyle(e)[name];
            const texts = [...document.querySelectorAll('#scores .wide text')];
            const label = texts.find((e) => e.textContent.startsWith('kept'));
            return [style(document.body, 'backgroundColor'), style(document.body, 'color'), style(label, 'fill'),
                    style(document.querySelector('.eyebrow'), 'color')];
        }"""
    )
    background, ink, label, muted = (luminance(colour) for colour in colours)
    assert label == ink
    assert (background > 0.8) == (scheme == "light")
    assert contrast(background, ink) > 7
    assert contrast(background, muted) > 4.5
    page.close()


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_the_headline_names_what_differs_most_outside_the_rule():
    page = unescape(re.sub(r"<[^>]+>", " ", render_report(make_selection(), make_record())))
    named = re.search(r"Outside the rule, kept and dropped rows differ most in (\w+)\.", page)[1]
    assert named not in {term["column"] for term in RULE["terms"]}
    scores = Scores.of(make_selection())
    away = {name: abs(scores.compare(name).superiority - 0.5) for name in scores.indicators}
    outside = {name: far for name, far in away.items() if name not in {term["column"] for term in RULE["terms"]}}
    assert named == max(outside, key=outside.get)
