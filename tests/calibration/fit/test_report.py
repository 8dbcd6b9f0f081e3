"""The report of a fit: complete, the same every time, safe whatever a table holds; seen in a browser."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from browser import opened
from command_line import invoke
from synthetic_runs import alike, make_means, make_runs

from im_datasets.calibration import fit_rule
from im_datasets.calibration.fit import report as module
from im_datasets.calibration.fit.report import render_fit_report, use_command, write_fit, write_fit_report
from im_datasets.calibration.runs import append_run
from im_datasets.common.errors import OutputError
from im_datasets.rules.linear import LinearRule

QUICK = {"repeats": 1, "resamples": 100}
NASTY = [
    "<script>window.owned = 1</script>",
    '"><img src=x onerror="window.owned = 1">',
    "{{7*7}} $x^2$ $\\frac{",
    "</style></title><plaintext> \u202e\x00\x1b[31m שלום 👩‍👩‍👧",
    "'><svg onload=window.owned=1>" + "x" * 400,
]


@pytest.fixture(scope="module")
def fit():
    return fit_rule(make_runs(40), **QUICK)


@pytest.fixture(scope="module")
def html(fit):
    return render_fit_report(fit)


@pytest.fixture(scope="module")
def hostile():
    """A fit on runs whose every text is an attack."""
    means = dict(zip(NASTY, make_means(30).values(), strict=False))
    runs = make_runs(30, noise=0.2, means=means, base_model={"id": NASTY[0]}, training={NASTY[1]: NASTY[2]})
    runs = [
        replace(run, run=f"{NASTY[i % 5]}{i}", losses={NASTY[3]: run.losses["self-instruct"]})
        for i, run in enumerate(runs)
    ]
    return fit_rule(runs, name=NASTY[1], method="none", regularise="always", **QUICK)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def text_of(html):
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


def test_report_shows_the_rule_its_trust_and_the_line_to_use_it(fit, html):
    text = " ".join(text_of(html).split())
    assert "A rule of 3 terms explains" in text
    assert "im-datasets mine DATA --rule rule.json --fraction 0.1 --out mined" in text
    for caveat in fit.rule.caveats:
        assert caveat in text
    for column in fit.columns:
        assert f"× {column}" in text
    assert f"{fit.cross_validation.r_squared:.2f}" in text
    assert "BIC over every subset of 3 candidates, at most 3 terms: 7 models compared" in text


def test_report_has_its_figures_and_every_run(fit, html):
    names = re.findall(r'data-figure="([^"]+)"', html)
    assert len(names) == len(set(names))
    assert {"effects-wide", "effects-narrow", "prediction", "by-size", "triangle", "alone-2", "residuals-2"} <= set(
        names
    )
    assert "penalties" not in names
    for run in fit.observations.runs:
        assert f">{run}<" in html


def test_report_loads_and_runs_nothing(html):
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", html)


def test_report_is_the_same_every_time(fit, html):
    assert render_fit_report(fit) == html


def test_report_colours_follow_the_page(html):
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--kept)" in drawn
    assert not re.findall(r"#[0-9a-f]{6}", drawn)


def test_report_of_ridge_shows_penalty_and_both_coefficients():
    fit = fit_rule(make_runs(40, means=alike(40)), method="none", **QUICK)
    text = " ".join(text_of(render_fit_report(fit)).split())
    assert "The ridge penalty" in text
    assert "Least squares" in text
    assert "They were not: all 4 candidates are in the rule, as asked." in text


def test_report_of_a_useless_rule_says_so_at_the_top():
    fit = fit_rule(make_runs(30, columns=("im_quality",), noise=0.2), **QUICK)
    html = render_fit_report(fit)
    assert "A rule of 1 term that does not predict the loss of runs it has not seen" in html
    assert 'data-figure="triangle"' not in html


def test_report_lists_at_most_so_many_runs(fit, monkeypatch):
    monkeypatch.setattr(module, "MOST_RUNS", 3)
    text = " ".join(text_of(render_fit_report(fit)).split())
    assert "The 3 with the largest Cook’s distance; all 40 stand in the table of runs." in text


def test_hostile_texts_are_escaped(hostile):
    html = render_fit_report(hostile)
    seen = Tags()
    seen.feed(html)
    assert not seen.tags & {"script", "img", "plaintext", "iframe"}
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert not re.findall("[\x00\x1b]", html)
    assert "&lt;script&gt;window.owned" in html


def test_write_fit_leaves_a_rule_and_replaces_its_own(fit, tmp_path):
    path = write_fit(fit, tmp_path / "deep")
    assert write_fit(fit, tmp_path / "deep") == path
    assert LinearRule.load(path).terms == fit.rule.terms
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "rule.json"]


@pytest.mark.parametrize("name", ["report.html", "rule.json"])
def test_write_fit_refuses_a_folder_of_something_else(fit, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="is not of a fit; name another folder"):
        write_fit(fit, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_use_command_quotes_the_path():
    assert use_command("my rules/r.json") == "im-datasets mine DATA --rule 'my rules/r.json' --fraction 0.1 --out mined"


def test_calibrate_runs_writes_rule_and_report(tmp_path):
    for run in make_runs(20):
        append_run(tmp_path / "runs.jsonl", run)
    with (tmp_path / "runs.jsonl").open("a") as table:
        table.write('{"run": "torn')
    command = [
        "calibrate",
        "--runs",
        str(tmp_path / "runs.jsonl"),
        "--out",
        str(tmp_path / "out"),
        "--resamples",
        "100",
    ]
    done = invoke(*command, "--exclude", "im_mtld", "--criterion", "aicc", "--name", "mine")
    assert done.exit_code == 0, done.output
    assert "note: line 21 was not finished" in done.output
    assert f"--rule {tmp_path / 'out' / 'rule.json'}" in " ".join(done.output.split())
    rule = LinearRule.load(tmp_path / "out" / "rule.json")
    assert rule.name == "mine"
    assert rule.provenance["criterion"] == "aicc"
    assert "im_mtld" not in rule.columns
    assert (tmp_path / "out" / "report.html").stat().st_size > 20_000


@pytest.mark.browser
@pytest.mark.parametrize("which", ["fit", "hostile"])
def test_page_fits_the_window_and_runs_nothing(browser, tmp_path, request, which):
    path = write_fit_report(request.getfixturevalue(which), tmp_path / "report.html")
    page = opened(browser, path, viewport={"width": 320, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 1280, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.evaluate("window.owned") is None
    assert page.problems == []
    assert page.requests_made == [path.as_uri()]
    page.close()
