"""Each check finds what was tampered with, and nothing else."""

import pytest
from verifying import (
    DROPPED,
    FAILED,
    KEPT,
    NOT_CHECKED,
    PASSED,
    REPO,
    edit_manifest,
    failures,
    rewrite,
    set_value,
    told,
)

from im_datasets import mine, push_selected, verify


def test_verify_catches_one_byte(published):
    folder = published(include_dropped=True)
    data = bytearray((folder / KEPT).read_bytes())
    data[100] ^= 1
    (folder / KEPT).write_bytes(bytes(data))
    verification = verify(folder)
    assert not verification.ok
    assert f"{KEPT} has another sha256 than claimed" in told(verification, FAILED)


def test_verify_catches_a_changed_score(published):
    folder = published(include_dropped=True)
    rewrite(folder, DROPPED, set_value("im_log_loss", 0, 9.0))
    verification = verify(folder, sample=0)
    assert "1 scores are not what the rule gives" in told(verification, FAILED)


def test_verify_catches_a_row_taken_out(published):
    folder = published(include_dropped=True)
    rewrite(folder, KEPT, lambda rows: rows.select(range(3)))
    verification = verify(folder, sample=0)
    assert "kept has 3 rows" in told(verification, FAILED)


def test_verify_catches_rows_in_another_order_and_a_row_twice(published):
    folder = published(include_dropped=True)
    rewrite(folder, KEPT, lambda rows: rows.select([1, 0, 2, 2]))
    assert {"counts", "cut"} <= failures(verify(folder, sample=0))


def test_verify_catches_a_number_on_the_card(published):
    folder = published(include_dropped=True)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("| **kept** | **4** |", "| **kept** | **5** |"))
    verification = verify(folder, sample=0)
    assert failures(verification) == {"card"}
    assert "the part selection is not as it was pushed" in told(verification, FAILED)


def test_verify_catches_a_number_on_the_card_whose_digest_was_made_right(published):
    from im_datasets.report.card_blocks import block_digests, find_blocks

    folder = published(include_dropped=True)
    card = (folder / "README.md").read_text().replace("| **kept** | **4** |", "| **kept** | **5** |")
    (folder / "README.md").write_text(card)
    edit_manifest(folder, lambda manifest: manifest["card"].update(blocks=block_digests(find_blocks(card))))
    verification = verify(folder, sample=0)
    assert "the part selection, as it was pushed, does not tell what the rows" in told(verification, FAILED)


def test_verify_catches_a_number_in_the_front_matter(published):
    folder = published(include_dropped=True)
    card = (folder / "README.md").read_text()
    assert "num_examples: 4" in card
    (folder / "README.md").write_text(card.replace("num_examples: 4", "num_examples: 400"))
    assert "dataset_info in the front matter" in told(verify(folder, sample=0), FAILED)


def test_verify_refuses_terms_that_no_push_stated(pushed):
    pushed(lambda front: front.update(license_name="free for all", license_link="https://example.org"))
    wrong = told(verify(REPO, sample=0), FAILED)
    assert "license_name in the front matter is free for all, pushed was none" in wrong
    assert "license_link in the front matter is https://example.org, pushed was none" in wrong


def test_verify_names_fields_that_were_edited_since(pushed):
    pushed(lambda front: front.update(language=["fr"], pretty_name="Mine"))
    verification = verify(REPO, sample=0)
    assert verification.ok
    assert "fields are as they were pushed; edited since: language" in told(verification, PASSED)


def test_verify_leaves_what_people_add_to_the_card_alone(published):
    folder = published(include_dropped=True)
    card = (
        (folder / "README.md").read_text().replace("tags:\n", "tags:\n- mine\n").replace("# Selected", "# My selected")
    )
    (folder / "README.md").write_text(card + "\nThanks.\n")
    assert verify(folder, sample=0).ok


@pytest.mark.parametrize(
    ("change", "name", "match"),
    [
        (lambda m: m["selection"].update(cut=-100.0), "cut", "the claimed cut is -100.0"),
        (lambda m: m["selection"].update(kept=7), "counts", "4 rows kept, claimed are 7"),
        (lambda m: m["selection"]["reasons"].update({"below the cut": 1}), "counts", "drop reasons"),
        (lambda m: m["record"].update(rows=100), "counts", "but 100 were scored"),
        (lambda m: m["record"]["rule"].update(intercept=5.0), "rule", "is not the rule 'embedded' that im-datasets"),
        (lambda m: m["record"]["statistics"]["im_mtld"].update(mean=7.0), "statistics", "claimed is 7.0"),
        (lambda m: m["files"].pop(KEPT), "files", "has no checksum"),
        (lambda m: m["record"]["indicators"][0]["model"].update(revision="sha256:0"), "sample", "the record names"),
        (lambda m: m["card"].pop("blocks"), "card", "something is not as it should be"),
    ],
)
def test_verify_catches_a_changed_claim(published, change, name, match):
    folder = published(include_dropped=True)
    edit_manifest(folder, change)
    verification = verify(folder, sample=2)
    assert name in failures(verification)
    assert match in told(verification, FAILED)


def test_verify_catches_a_missing_file(published):
    folder = published(include_dropped=True)
    (folder / "figures/indicators.png").unlink()
    assert "figures/indicators.png is missing" in told(verify(folder, sample=0), FAILED)
    (folder / KEPT).unlink()
    assert "cannot be read" in told(verify(folder, sample=0), FAILED)
    (folder / "README.md").unlink()


@pytest.fixture(scope="module")
def of_targets(mined, tmp_path_factory):
    """The same rows, of which two targets chose four."""
    folder = tmp_path_factory.mktemp("targets")
    source = mined.folder.parent / "rows.jsonl"
    targets = [("Where do bees live?", "In a hive."), ("What is blue?", "The sky is."), ("Name a fruit.", "A pear.")]
    return mine(source, folder / "mined", top_k=4, targets=targets, license="cc0-1.0", language="en", progress=False)


@pytest.fixture
def published_by_targets(hub, of_targets, tmp_path):
    push_selected(of_targets.selection, REPO, license="cc0-1.0", language="en", include_dropped=True)
    for path, file in hub.store.repos["dataset", REPO].commit_at("main").files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(file.content)
    return tmp_path


def test_verify_holds_rows_that_targets_chose_to_their_turns(published_by_targets):
    verification = verify(published_by_targets)
    assert verification.ok
    assert "4 kept rows were taken by 3 targets in turn" in told(verification, PASSED)
    left = told(verification, NOT_CHECKED)
    assert "that each target took the row nearest to it: target examples are not published" in left
    assert "that 1 dropped rows repeat a target and no kept row does: the targets were not published" in left
    assert "TargetSimilarity: of its targets the record has the digest alone" in left
    assert "selection.targets.sha256" in left


@pytest.mark.parametrize(
    ("path", "column", "value", "message"),
    [
        (KEPT, "im_target", 2, "the 3 targets did not take turns: im_target is not that of the rank"),
        (DROPPED, "im_target", 0, "the 3 targets did not take turns"),
        (KEPT, "im_rank", 9, "not in the order of their ranks"),
        (KEPT, "im_log_loss", float("nan"), "a kept row has no score"),
    ],
)
def test_verify_catches_what_does_not_go_with_turns(published_by_targets, path, column, value, message):
    rewrite(published_by_targets, path, set_value(column, 1, value))
    verification = verify(published_by_targets, sample=0)
    assert "cut" in failures(verification)
    assert message in told(verification, FAILED)


def test_verify_catches_claims_that_do_not_go_with_targets(published_by_targets):
    edit_manifest(published_by_targets, lambda manifest: manifest["selection"].update(cut=0.5))
    assert "the claimed cut is 0.5; rows that targets choose have none" in told(verify(published_by_targets), FAILED)
    edit_manifest(published_by_targets, lambda manifest: manifest["selection"]["targets"].update(examples=0))
    assert "the rows do not say which of 0 targets took them" in told(verify(published_by_targets), FAILED)


def test_verify_catches_targets_that_nobody_asked_for(published_by_targets):
    edit_manifest(published_by_targets, lambda manifest: manifest["selection"].update(targets=None))
    verification = verify(published_by_targets, sample=0)
    assert {"cut", "reasons", "settings"} <= failures(verification)
    assert "rows were dropped as 'repeats a target', which the selection was not asked for" in told(
        verification, FAILED
    )
