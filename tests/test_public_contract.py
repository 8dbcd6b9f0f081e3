"""What users build on does not change unseen: names, signatures, commands, columns, JSON layouts, keys of the store.

`python tests/test_public_contract.py` writes the snapshot anew, for a change that is meant; its diff says what changed.
"""

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from datasets import Dataset

import im_datasets
from im_datasets import calibration, indicators, mine
from im_datasets.calibration import Run
from im_datasets.cli.main import app
from im_datasets.cli.printing import summarise
from im_datasets.hub.manifest import Manifest
from im_datasets.indicators import IFD, Perplexity, Reward, UniEval
from im_datasets.indicators.metric import module_names
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.indicators.settings import ENTRY_POINTS
from im_datasets.models.inference import _keys
from im_datasets.report.configs import MANIFEST, Config, Published
from im_datasets.report.result_folder import CARD, DROPPED, KEPT, REPORT
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.record import RECORD, IndicatorRecord, ScoringRecord

SNAPSHOT = Path(__file__).parent / "golden" / "public_contract.json"
PACKAGES = [im_datasets, indicators, calibration]


def names():
    """Public name → its signature, and for a class those of its public members too."""
    return {
        f"{package.__name__}.{name}": _describe(getattr(package, name))
        for package in PACKAGES
        for name in package.__all__
        if name != "__version__"
    }


def _describe(thing):
    if not inspect.isclass(thing):
        return _signature(thing) if callable(thing) else sorted(thing)
    if issubclass(thing, Exception):
        return "error"
    members = {name: member for name, member in inspect.getmembers(thing) if not name.startswith("_")}
    public = {name: _signature(member) if callable(member) else "value" for name, member in members.items()}
    if is_dataclass(thing):
        public |= {field.name: "field" for field in fields(thing)}
    return {"(…)": _signature(thing), **public}


def _signature(thing):
    """A signature as text, types by their last name: where a class lies is nobody's business."""
    text = str(inspect.signature(thing))
    text = re.sub(r"<factory>|<function [^>]*>|<class '([^']*)'>", lambda m: m[1] or "<factory>", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(\w+)", r"\1", text)


def commands():
    """Command → its arguments, and its options with their defaults."""
    version = {flag: {"required": False, "repeatable": False, "default": False} for flag in app.version_flags}
    return dict(sorted(_commands(app, "im-datasets"))) | {"im-datasets": version}


def _commands(command, path):
    # What begins with a dash is cyclopts' own: the help, the version, the completion of shells.
    for name in command:
        if not name.startswith("-"):
            yield from _commands(command[name], f"{path} {name}")
    described = {}
    arguments = (
        command.assemble_argument_collection(default_parameter=app.default_parameter) if command.default_command else ()
    )
    # A group of options holds the others; what is not read from words is nobody's option.
    for each in (each for each in arguments if not each.children and each.parameter.parse is not False):
        default = each.field_info.default
        is_option = each.name.startswith("-")
        described[" ".join(sorted(each.names)) if is_option else each.field_info.name] = {
            "required": each.required,
            "repeatable": is_option and each.parameter.n_tokens is None and "list" in str(each.hint),
            "default": default if isinstance(default, str | int | float | bool | list) else None,
        }
    yield path, described


def layouts():
    """What is written: columns, files, and the fields of everything that goes to disk or to the Hub."""
    written = (ScoringRecord, IndicatorRecord, Manifest, Config, Published, Run)
    return {
        "columns": {name: [column.unit, column.direction] for name, column in COLUMNS.items()},
        "unscorable": UNSCORABLE,
        "files": [KEPT, DROPPED, RECORD, REPORT, CARD, MANIFEST],
        "fields": {each.__name__: [field.name for field in fields(each)] for each in written},
        "rules": {name: sorted(LinearRule.load(name).to_dict()) for name in LinearRule.names()},
        "entry points": ENTRY_POINTS,
        "modules": sorted(module_names()),
    }


def store():
    """Keys of the store: values computed before an upgrade are found after it."""
    models = [
        Perplexity(model="m"),
        Perplexity(model="m", condition_on_instruction=False, template="plain"),
        IFD(model="m", template="alpaca"),
        Reward(model="m"),
        UniEval(model="m"),
    ]
    return {repr(each): [key.hex() for key in _keys(["text", ["a", "b"]], each.space())] for each in models}


def outputs():
    """What a run really writes: every field of record, summary and manifest, whatever its value."""
    rows = {
        "instruction": [f"Say {word}." for word in "abcdefgh"],
        "output": [f"This is {word}." for word in "abcdefgh"],
    }
    with TemporaryDirectory() as folder:
        mined = mine(Dataset.from_dict(rows), Path(folder) / "mined", top_k=4, progress=False)
        record = json.loads((mined.folder / RECORD).read_text(encoding="utf-8"))
        summary = json.loads(json.dumps(summarise(mined)))
    return {"record": _shape(record), "summary": _shape(summary), "versions": sorted(record["versions"])}


def _shape(value):
    """Names and kinds, values left out; lists by their first element."""
    if isinstance(value, dict):
        return {name: _shape(each) for name, each in sorted(value.items()) if name != "versions"}
    return [_shape(each) for each in value[:1]] if isinstance(value, list) else type(value).__name__


SECTIONS = {section.__name__: section for section in (names, commands, layouts, store, outputs)}


@pytest.mark.parametrize("section", SECTIONS)
def test_public_contract_is_as_it_was(section):
    assert json.loads(json.dumps(SECTIONS[section]())) == json.loads(SNAPSHOT.read_text(encoding="utf-8"))[section]


def test_there_are_53_public_names():
    assert sum(len(package.__all__) for package in PACKAGES) == 53


if __name__ == "__main__":
    contract = {name: section() for name, section in SECTIONS.items()}
    SNAPSHOT.write_text(json.dumps(contract, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
