"""Files and card of a publication in repositories that hold something: nobody's work is lost."""

import json
import re
from dataclasses import replace

import pytest
from datasets import Dataset, concatenate_datasets, load_dataset
from pushing import FILES, REPO, card_of, front_matter, make_other, push
from report_sample import make_record

from im_datasets import load_selection, push_selected
from im_datasets.common.errors import ConflictError, HubError
from im_datasets.hub.verification.checks import Outcome
from im_datasets.hub.verification.verify import verify
from im_datasets.models.hub_models import EMBEDDED_SHA256
from im_datasets.report.card_blocks import find_blocks

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_push_publishes_the_record_with_checksums(hub, selection):
    push(selection)
    told = json.loads(hub.store.read(REPO, "instructmining.json"))
    assert told["record"] == json.loads(json.dumps(make_record().to_dict()))
    assert told["selection"]["cut"] == selection.cut
    files = hub.store.repos["dataset", REPO].commit_at("main").files
    assert {path: file["sha256"] for path, file in told["files"].items()} == {
        path: files[path].sha256 for path in FILES if path not in {".gitattributes", "README.md", "instructmining.json"}
    }


def test_card_of_a_branch_loads_and_verifies_that_branch(hub, selection):
    # As a real selection tells what its near-duplicates were told by.
    encoder = {"id": "embedded", "revision": EMBEDDED_SHA256, "dtype": "float32"}
    selection = replace(selection, settings={**selection.settings, "embedder": encoder})
    push(selection)
    push(selection, revision="dev")
    card = card_of(hub, "dev")
    assert f'load_dataset("{REPO}", split="train", revision="dev")' in card
    assert f"`im-datasets verify {REPO} --revision dev`" in card
    assert "revision=" not in card_of(hub)
    assert not [check for check in verify(REPO, revision="dev", sample=0).checks if check.outcome == Outcome.FAILED]


def test_another_name_of_a_licence_takes_no_link_from_the_card(hub, selection):
    card = b"---\nlicense: other\nlicense_name: old\nlicense_link: https://example.org/old\nlanguage: en\n---\n"
    hub.store.put(REPO, {"README.md": card})
    push_selected(selection, REPO, license="other")
    assert front_matter(card_of(hub))["license_link"] == "https://example.org/old"
    push_selected(selection, REPO, license="other", license_name="new")
    front = front_matter(card_of(hub))
    assert (front["license_name"], "license_link" in front) == ("new", False)


def test_push_without_a_record_says_so(hub, selection):
    push(replace(selection, record=None))
    assert "No record of the scoring came with this selection" in card_of(hub)
    assert json.loads(hub.store.read(REPO, "instructmining.json"))["record"] is None
    assert load_selection(REPO).record is None


def test_push_leaves_the_report_out_unless_asked(hub, selection):
    push(selection)
    assert "report.html" not in hub.store.paths(REPO)
    push(selection, report=True)
    assert b"Describe thing number" in hub.store.read(REPO, "report.html")
    assert not push(selection, report=True).changed
    push(selection)
    assert "report.html" not in hub.store.paths(REPO)


def test_push_asks_for_licence_and_language(hub, selection):
    with pytest.raises(HubError, match=r"licence .* was not given.*--license.*language .* was not given.*--language"):
        push_selected(selection, REPO)
    assert ("dataset", REPO) not in hub.store.repos


def test_push_takes_licence_and_terms_from_the_source_card(hub, selection):
    source = (
        b"---\nlicense: other\nlicense_name: our-terms\nlicense_link: https://example.org/terms\nlanguage: [en, de]\n"
    )
    sha = hub.store.put("someone/rows", {"README.md": source + b"task_categories: [text-generation]\n---\n"}).sha
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": sha})
    push_selected(replace(selection, record=record), REPO)
    front = front_matter(card_of(hub))
    assert (front["license"], front["license_name"]) == ("other", "our-terms")
    assert (front["language"], front["task_categories"]) == (["en", "de"], ["text-generation"])
    assert front["source_datasets"] == ["someone/rows"]
    assert "Licence that the source's own card states: other, our-terms" in card_of(hub)


def test_push_names_both_licences_where_they_differ(hub, selection):
    sha = hub.store.put("someone/rows", {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"}).sha
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": sha})
    push(replace(selection, record=record))
    assert front_matter(card_of(hub))["license"] == "cc-by-4.0"
    assert "own card states: cc-by-nc-4.0" in card_of(hub)


def test_push_takes_licence_from_the_card_that_mine_wrote(hub, selection):
    push_selected(selection, REPO, card="---\nlicense: mit\nlanguage: fr\npretty_name: Les meilleurs\n---\n")
    front = front_matter(card_of(hub))
    assert (front["license"], front["language"], front["pretty_name"]) == ("mit", ["fr"], "Les meilleurs")


def test_push_keeps_what_people_wrote_into_the_card(hub, selection):
    push(selection)
    card = card_of(hub)
    written = card.replace("license: cc-by-4.0\n", "license: cc-by-4.0\n# reviewed by me\nmy_field: [a, b]\n")
    written = (
        written.replace("# Selected rows", "# My rows\n\nBy hand.\n\n## Selected rows") + "\n## Thanks\n\nTo all.\n"
    )
    hub.store.put(REPO, {"README.md": written.encode(), "notes.txt": b"mine"})
    push(make_other(selection))
    after = card_of(hub)
    for text in ("# reviewed by me\nmy_field: [a, b]\n", "# My rows\n\nBy hand.\n", "\n## Thanks\n\nTo all.\n"):
        assert text in after
    assert "Kept 5 of 24 rows" in after
    assert "Kept 8 of 24 rows" not in after
    assert hub.store.read(REPO, "notes.txt") == b"mine"


def test_push_into_a_foreign_repository_adds_to_its_card(hub, selection):
    card = b"---\nlicense: mit\ntags: [poetry]\npretty_name: Poems\n---\n# Poems\n\nAll mine.\n"
    hub.store.put(REPO, {"README.md": card, "make_poems.py": b"..."})
    push_selected(selection, REPO, language="en")
    after = card_of(hub)
    front = front_matter(after)
    assert (front["license"], front["pretty_name"]) == ("mit", "Poems")
    assert front["tags"] == ["poetry", "im-datasets", "instruction-mining"]
    assert "# Poems\n\nAll mine.\n" in after
    assert "# Selected rows" not in after
    assert list(find_blocks(after)) == ["summary", "selection", "provenance"]
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_refuses_to_lose_an_edit_between_the_markers(hub, selection):
    push(selection)
    hub.store.put(REPO, {"README.md": card_of(hub).replace("Kept 8 of", "Kept nearly 8 of").encode()})
    with pytest.raises(ConflictError, match="summary was edited by hand; move the edit outside the markers"):
        push(make_other(selection))
    push(make_other(selection), overwrite=True)
    assert "Kept 5 of 24" in card_of(hub)


@pytest.mark.parametrize(
    "path",
    ["data/a.jsonl.gz", "train.txt", "a.arrow", "data.zip", "images/a.PNG", "shards/a.tar", "tasks/one/task.toml"],
)
def test_push_refuses_to_take_data_of_any_format_from_sight(hub, selection, path):
    hub.store.put(REPO, {path: b"..."})
    with pytest.raises(ConflictError, match=f"holds {re.escape(path)}, which load_dataset gives now"):
        push(selection)


def test_push_into_a_repository_of_notes_hides_nothing(hub, selection):
    notes = ["LICENSE", "NOTES.md", "make.py", "pyproject.toml", "dataset_infos.json", ".cache/a.csv", "weights.bin"]
    hub.store.put(REPO, dict.fromkeys(notes, b"{}"))
    assert push(selection).changed
    assert set(notes) <= set(hub.store.paths(REPO))


def test_push_refuses_to_take_other_data_from_sight(hub, selection):
    hub.store.put(REPO, {"train.jsonl": b'{"a": 1}\n'})
    with pytest.raises(ConflictError, match=r"holds train\.jsonl, which load_dataset gives now"):
        push(selection)
    assert push(selection, overwrite=True).changed
    assert hub.store.read(REPO, "train.jsonl") == b'{"a": 1}\n'


@pytest.mark.parametrize("field", ["configs", "dataset_info"])
def test_push_refuses_where_a_file_overrules_the_card(hub, selection, field):
    hub.store.put(REPO, {".huggingface.yaml": f"{field}:\n- config_name: kept\n".encode()})
    for overwrite in (False, True):
        with pytest.raises(
            ConflictError, match=rf"\.huggingface\.yaml in the repository has {field}, which datasets reads"
        ):
            push(selection, overwrite=overwrite)
    hub.store.put(REPO, {".huggingface.yaml": b"viewer: false\n"})
    push(selection)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_refuses_another_default_config(hub, selection, tmp_path):
    card = b"---\nconfigs:\n- config_name: full\n  default: true\n  data_files: full.parquet\n---\n"
    Dataset.from_dict({"a": [1]}).to_parquet(tmp_path / "full.parquet")
    hub.store.put(REPO, {"README.md": card, "full.parquet": (tmp_path / "full.parquet").read_bytes()})
    with pytest.raises(ConflictError, match="names 'full' as the default config"):
        push(selection)
    push(selection, overwrite=True)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()
    assert load_dataset(REPO, "full", split="train").to_list() == [{"a": 1}]


def test_push_refuses_to_make_another_config_unreadable(hub, selection):
    """`datasets` reads all configs of a repository in the format of the default one."""
    card = b"---\nconfigs:\n- config_name: full\n  data_files: full.jsonl\n---\n"
    hub.store.put(REPO, {"README.md": card, "full.jsonl": b'{"a": 1}\n'})
    with pytest.raises(ConflictError, match=r"config 'full' reads full\.jsonl"):
        push(selection)


def test_nothing_that_is_pushed_names_a_path_of_this_machine(hub, selection, tmp_path):
    folder = f"{tmp_path}/model"
    stated = {"Similarity": {"embedder": {"model": folder, "weights": "sha256:0a"}}, "Reward": {"model": folder}}
    record = make_record(
        rule=replace(make_record().rule, indicators=stated, provenance={"base_model": {"id": folder}}),
        command=["im-datasets", "mine", f"--rule={tmp_path}/rule.json", "--out", "x"],
        source={"kind": "file", "id": f"{tmp_path}/rows.jsonl", "files": [f"{tmp_path}/rows.jsonl"]},
        indicators=[replace(make_record().indicators[0], settings={"tokenizer": folder})],
    )
    push(replace(selection, record=record), report=True)
    for file in hub.store.repos["dataset", REPO].commit_at("main").files.values():
        assert str(tmp_path).encode() not in file.content
    assert b"--rule=rule.json" in hub.store.read(REPO, "report.html")
    assert "--rule=rule.json" in card_of(hub)


def test_hostile_names_and_texts_are_pushed_and_read_back(hub, selection):
    """YAML, Markdown, HTML, emoji, right-to-left and very long names, of columns and in rows."""
    names = ["---\nlicense: mit\n---", "a: [b", "<script>alert(1)</script>", "🙂 " * 50, "\u202eמימין", "n" * 5000]
    texts = [*names, "<!-- im-datasets:end summary -->", "| a | b |\n|---|---|"]
    extra = Dataset.from_dict(dict.fromkeys(names, texts))
    kept = concatenate_datasets([extra, selection.kept], axis=1)
    record = make_record(source={"kind": "hub", "id": names[0], "files": names})
    push(replace(selection, kept=kept, record=record), pretty_name=names[0])
    assert load_dataset(REPO, split="train").to_list() == kept.to_list()
    assert front_matter(card_of(hub))["license"] == "cc-by-4.0"
    assert list(find_blocks(card_of(hub))) == ["summary", "selection", "provenance"]


def test_push_names_the_content_of_each_config_and_writes_it_once(hub, selection):
    push(selection, include_dropped=True)
    files = hub.store.repos["dataset", REPO].commit_at("main").files
    configs = front_matter(card_of(hub))["configs"]
    told = {config["config_name"]: config["description"] for config in configs}
    assert told == {
        name: f"content sha256 {files[f'{name}/train-00000-of-00001.parquet'].sha256}" for name in ("kept", "dropped")
    }
    assert not push(selection, include_dropped=True).changed
