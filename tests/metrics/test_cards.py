"""Every card is true: its headings, its table, its settings, and each example, executed."""

import doctest
import re
from inspect import signature

import pytest
from module_samples import ROOT, SAMPLES

import im_datasets
from im_datasets.indicators.score_columns import COLUMNS, output_table

HEADINGS = [
    "## Metric Description",
    "## How to Use",
    "### Inputs",
    "### Output Values",
    "### Examples",
    "## Limitations and Bias",
    "## Citation",
    "## Further References",
]


def card(name):
    return (ROOT / "metrics" / name / "README.md").read_text(encoding="utf-8")


def listed(name):
    """The columns as a card lists them: a neighbour column under the paper's k."""
    return [re.sub(r"^im_knn_\d+$", "im_knn_6", column) for column in SAMPLES[name].columns]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_card_has_the_headings_of_evaluates_own_cards(name):
    found = re.findall(r"^#{2,3} .*$", card(name), flags=re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS
    assert re.search(r"^# Metric Card for \S", card(name), flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_card_and_table_of_columns_agree(name):
    assert output_table(listed(name)) in card(name)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_sample_and_table_of_columns_agree(name):
    classes = {"InstructMining": "LinearRule"}
    writer = SAMPLES[name].batch_function.__name__
    assert {COLUMNS[column].indicator for column in listed(name)} == {classes.get(writer, writer)}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_card_names_every_input_and_no_other(name):
    module = im_datasets.metric(name, keep_in_memory=True)
    inputs = card(name).split("### Inputs")[1].split("###")[0]
    assert re.findall(r"^- \*\*(\w+)\*\*: ", inputs, flags=re.MULTILINE) == list(signature(module._compute).parameters)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_card_cites_what_the_module_cites(name):
    assert im_datasets.metric(name, keep_in_memory=True).citation.strip() in card(name)


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.usefixtures("stand_ins")
def test_every_example_of_a_card_is_true(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", card(name), flags=re.DOTALL)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, f"{name}/README.md", 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)
    assert result.attempted > 2
    assert len(blocks) > 1


def test_card_of_the_rule_says_what_the_default_rule_is():
    rows = {"references": ["Count to three."], "predictions": ["One, two, three."]}
    quality = im_datasets.metric("quality", keep_in_memory=True).compute(**rows)["im_quality"]
    log_loss = im_datasets.metric("log_loss", keep_in_memory=True).compute(**rows)["im_log_loss"]
    assert log_loss == [-value for value in quality]
