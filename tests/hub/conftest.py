"""A small selection, figures that cost nothing, and waiting without waiting."""

import io
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from datasets import Dataset
from forging import ASKED, DEFAULT, FACTS, RULE, source_rows
from forging import REPO as FORGED
from report_sample import make_record, make_selection
from verifying import (
    REPO,
    ROWS,
)

from im_datasets import mine, push_selected
from im_datasets.common.storage import write_bytes
from im_datasets.hub import client as hub_errors
from im_datasets.report.card import FIGURE, PANELS


@pytest.fixture
def waits(monkeypatch):
    """Seconds waited, by us and by the client, without waiting."""
    waited = []
    monkeypatch.setattr(hub_errors, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def quick_figures(monkeypatch):
    """Drawing takes a second; what is drawn is for the tests of the card."""

    def write(selection, folder):
        for path in (FIGURE, PANELS):
            write_bytes(folder / path, f"{path} of {len(selection.kept)} rows".encode())
        return [FIGURE, PANELS]

    monkeypatch.setattr("im_datasets.hub.publication.write_figures", write)


@pytest.fixture(scope="session")
def selection():
    return replace(make_selection(), record=make_record())


@pytest.fixture(scope="session")
def mined(tmp_path_factory):
    """A real run over nine rows, of which four are kept."""
    folder = tmp_path_factory.mktemp("verification")
    lines = [json.dumps({"instruction": x, "output": y}) for x, y in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    options = {"top_k": 4, "license": "cc0-1.0", "language": "en", "progress": False}
    return mine(folder / "rows.jsonl", folder / "mined", **options)


@pytest.fixture(scope="session")
def copies(mined, tmp_path_factory):
    """The files of each kind of publication, by what was asked; made once, without a Hub."""
    made = {}

    def make(hub, **options):
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            push_selected(mined.selection, REPO, license="cc0-1.0", language="en", **options)
            made[key] = dict(hub.store.repos["dataset", REPO].commit_at("main").files)
        return made[key]

    return make


@pytest.fixture
def published(hub, copies, tmp_path):
    """Lay a copy of a publication into a folder; tampering with it is what the tests do."""

    def lay(**options):
        for path, file in copies(hub, **options).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(file.content)
        return tmp_path

    return lay


@pytest.fixture
def pushed(hub, mined):
    """A published selection on the Hub, and a way to change its front matter beside rows of somebody else."""
    push_selected(mined.selection, REPO, license="cc0-1.0", language="en", include_dropped=True)
    card = hub.store.read(REPO, "README.md").decode()
    front, body = yaml.safe_load(card[4 : card.index("\n---\n", 4)]), card[card.index("\n---\n", 4) :]
    evil = io.BytesIO()
    Dataset.from_dict({"instruction": ["EVIL"], "output": ["evil"]}).to_parquet(evil)

    def tamper(change, files=None):
        fields = json.loads(json.dumps(front))
        change(fields)
        text = "---\n" + yaml.safe_dump(fields, sort_keys=False).rstrip("\n") + body
        hub.store.put(REPO, {"README.md": text.encode(), "extra/evil.parquet": evil.getvalue(), **(files or {})})

    return tamper


@pytest.fixture(scope="session")
def forge_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in source_rows()))
    return folder / "rows.jsonl"


@pytest.fixture(scope="session")
def forge_selected(forge_source, tmp_path_factory):
    """Selections by what was asked, each made once."""
    made = {}

    def select(**asked):
        key = json.dumps(asked, sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("mined") / "out"
            rule = asked.pop("rule", RULE)
            made[key] = mine(
                forge_source, folder, rule=rule, **{"top_k": 8, **asked}, **FACTS, progress=False
            ).selection
        return made[key]

    return select


@pytest.fixture(scope="session")
def forge_files():
    """The files of each publication, made once, without a Hub."""
    return {}


@pytest.fixture
def lay(hub, quick_figures, forge_selected, forge_files, tmp_path):
    """Lay a copy of a publication into a folder: what was asked of the selection, and of the push."""

    def put(asked=ASKED, options=DEFAULT):
        key = json.dumps([asked, options], sort_keys=True)
        if key not in forge_files:
            push_selected(forge_selected(**asked), FORGED, **FACTS, **options)
            forge_files[key] = dict(hub.store.repos["dataset", FORGED].commit_at("main").files)
        folder = tmp_path / "published"
        shutil.rmtree(folder, ignore_errors=True)
        for path, file in forge_files[key].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(file.content)
        return folder

    return put


@pytest.fixture
def no_loading(monkeypatch):
    """What `datasets` makes of the files takes a tenth of a second, and is for other tests."""
    monkeypatch.setattr("im_datasets.hub.verification.verify.check_loading", lambda published: iter(()))
