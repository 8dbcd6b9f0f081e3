"""Every Space's app.py, started headless and used in a browser; needs Gradio, which the package does not."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from module_samples import ROOT, SAMPLES

import im_datasets

PYTHON = os.environ.get("IM_SPACES_PYTHON") or sys.executable
HAS_GRADIO = sys.executable != PYTHON or find_spec("gradio") is not None

NO_GRADIO = "no Gradio; pip install 'im-datasets[spaces]', or name a Python that has it in IM_SPACES_PYTHON"

INSTRUCTION = "How many legs does a spider have?"
RESPONSE = "A spider has eight legs, two more than an insect."


def others(name):
    """The pairs that a page scores the typed one among, as its table shows them."""
    text = (ROOT / "metrics" / name / "app.py").read_text()
    return [tuple(pair) for pair in re.findall(r'^    \("(.*)", "(.*)"\),$', text, flags=re.MULTILINE)]


def program(name, model):
    """An app.py as ``serve_pages`` takes it."""
    return f"{ROOT}/metrics/{name}/app.py={model}"


@pytest.fixture(scope="module")
def addresses(samples):
    """Where the page of each module is served: every app.py run as a program."""
    settings = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_EVALUATE_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    models = {name: sample.settings.get("model", "") for name, sample in samples.items()}
    apps = [program(name, model) for name, model in models.items()]
    process = subprocess.Popen(
        [PYTHON, str(ROOT / "tests/support/serve_pages.py"), *apps, program("im_ifd", "/nowhere")],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    served = json.loads(line)
    yield {name: served[app] for name, app in zip(models, apps, strict=True)} | {
        "broken": served[program("im_ifd", "/nowhere")]
    }
    process.terminate()
    process.communicate(timeout=30)


needs_browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_GRADIO, reason=NO_GRADIO),
]


def marked(test):
    """A test that opens pages."""
    for mark in needs_browser:
        test = mark(test)
    return test


def targets(name):
    """The targets that a page states; none of most."""
    body = ast.parse((ROOT / "metrics" / name / "app.py").read_text(encoding="utf-8")).body
    stated = {ast.unparse(line.targets[0]): line.value for line in body if isinstance(line, ast.Assign)}
    return {"targets": ast.literal_eval(stated["TARGETS"])} if "TARGETS" in stated else {}


@marked
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_page_shows_the_numbers_of_a_typed_pair(name, browser, addresses, models, tmp_path):
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto(addresses[name])
    if name != "im_mtld":
        page.get_by_label("Instruction").fill(INSTRUCTION)
    page.get_by_label("Response").fill(RESPONSE)
    page.get_by_role("button", name="Score").click()
    page.locator("#scores td").first.wait_for()
    rows = [row.inner_text().split("\t") for row in page.locator("#scores tr").all()][1:]
    page.screenshot(path=os.environ.get("IM_SCREENSHOTS", str(tmp_path)) + f"/{name}.png")
    page.close()
    pairs = [(INSTRUCTION, RESPONSE), *others(name)]
    model = {"model": models[SAMPLES[name].model]} if SAMPLES[name].model else {}
    module = im_datasets.metric(name, keep_in_memory=True, **model, **targets(name))
    expected = module.compute(predictions=[r for _, r in pairs], references=[i for i, _ in pairs])
    columns = [key for key in expected if f"mean_{key}" in expected]
    assert [row[0] for row in rows] == columns
    assert [row[1] for row in rows] == [f"{expected[column][0]:.6g}" for column in columns]


@marked
def test_page_says_that_an_empty_response_is_not_scored(browser, addresses):
    page = browser.new_page()
    page.goto(addresses["im_similarity"])
    page.get_by_label("Response").fill("")
    page.get_by_role("button", name="Score").click()
    page.get_by_role("cell", name="could not be scored").wait_for()
    page.close()


@marked
def test_page_shows_what_went_wrong(browser, addresses):
    page = browser.new_page()
    page.goto(addresses["broken"])
    page.get_by_role("button", name="Score").click()
    page.get_by_text("/nowhere").nth(1).wait_for()
    page.close()
