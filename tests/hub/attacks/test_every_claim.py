"""Each claim of a publication changed, one after another: it fails, or it is named as not checked."""

import json
from typing import Any

import pytest
from forging import DEFAULT, MANIFEST

from im_datasets import verify
from im_datasets.common.errors import HubError
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Outcome
from im_datasets.hub.verification.claims import CLAIMS, claims_of, find_claim

OTHER = {"selection.near_duplicates": 0.5, "selection.top_k": 3, "columns": "original"}
"""Values for the claims of which many others would be just as true."""


def another(value: Any) -> Any:
    """A value that is not this one."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value[:-1] if isinstance(value, list) else f"{value}x"


def first_places(folder):
    """Of every claim that the publication makes the first place, with its value."""
    published = PublishedSelection.open(folder)
    found = {}
    for place, value in claims_of(published):
        claim = find_claim(place)
        if claim and claim.check and value not in (None, {}, [], ""):
            found.setdefault(claim.place, (place, value))
    return found


def change(folder, place, value):
    manifest = json.loads((folder / MANIFEST).read_text())
    inner = manifest
    for key in place[:-1]:
        inner = inner[int(key) if isinstance(inner, list) else key]
    last = int(place[-1]) if isinstance(inner, list) else place[-1]
    inner[last] = value
    if place[0] == "selection":
        manifest["record"]["selection"] = manifest["selection"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("options", "every"),
    [(DEFAULT, 1), ({}, 3), ({"scores_only": True}, 3)],
    ids=["both sides", "kept rows", "scores"],
)
def test_no_claim_changes_unsaid(no_loading, lay, options, every):
    folder = lay(options=options)
    honest = verify(folder, sample=2, seed=1)
    assert honest.ok
    unsaid = []
    places = first_places(folder)
    for claim, (place, value) in list(places.items())[::every]:
        lay(options=options)
        change(folder, place, OTHER.get(claim, another(value)))
        try:
            forged = verify(folder, sample=2, seed=1)
        except HubError:
            continue
        said = {check.told for check in forged.checks if check.outcome == Outcome.NOT_CHECKED}
        said -= {check.told for check in honest.checks}
        names = {name for check in honest.checks if check.outcome == Outcome.NOT_CHECKED for name in check.claims}
        if forged.ok and not said and not any(claim == name or claim.startswith(f"{name}.") for name in names):
            unsaid.append(claim)
    assert unsaid == []


def test_claims_without_a_check_are_all_named(lay):
    verification = verify(lay(), sample=0)
    said = "\n".join(check.told for check in verification.checks if check.outcome == Outcome.NOT_CHECKED)
    present = {find_claim(place) for place, value in claims_of(PublishedSelection.open(lay())) if value}
    for claim in CLAIMS:
        if claim.why and claim in present:
            assert claim.place.replace(".*", "").removeprefix("record.") in said
