"""A small selection, figures that cost nothing, and waiting without waiting."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from report_sample import make_record, make_selection

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
