from verifying import FAILED, NOT_CHECKED, PASSED, edit_manifest

from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.layout import check_layout


def test_check_layout_passes_what_was_pushed(published):
    folder = published(include_dropped=True, include_scores=True)
    layout, files = check_layout(PublishedSelection.open(folder))
    assert (layout.outcome, layout.told) == (PASSED, "columns of 3 tables are of the types that are written")
    told = "figures/indicators.png, figures/score_distribution.png: what they show or hold, beside their sha256"
    assert (files.outcome, files.told) == (NOT_CHECKED, told)


def test_check_layout_has_no_files_to_name_in_a_folder_of_mine(mined):
    (layout,) = check_layout(PublishedSelection.open(mined.folder))
    assert layout.outcome == PASSED


def test_check_layout_leaves_files_of_another_version_unchecked(published):
    folder = published(include_dropped=True)
    edit_manifest(folder, lambda m: m["files"].update({"notes.txt": m["files"]["figures/indicators.png"]}))
    layout, files = check_layout(PublishedSelection.open(folder))
    assert layout.outcome == FAILED
    edit_manifest(folder, lambda m: m.update(package_version="99"))
    layout, files = check_layout(PublishedSelection.open(folder))
    assert layout.outcome == PASSED
    assert "notes.txt" in files.told
