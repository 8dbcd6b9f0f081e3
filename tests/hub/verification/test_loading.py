"""What ``load_dataset`` makes of a card, told without asking for anything that the card names."""

import re

import pytest
import yaml
from datasets import load_dataset
from verifying import EVIL, FAILED, PASSED, REPO, failures, told

from im_datasets import verify


def evil_info(front):
    features = [{"name": name, "dtype": "string"} for name in ("instruction", "output")]
    splits = [{"name": "train", "num_bytes": 112, "num_examples": 1}]
    front["dataset_info"].append({"config_name": "kept", "features": features, "splits": splits})


def add_second_kept(front, **more):
    front["configs"].append({"config_name": "kept", "data_files": [EVIL], **more})


def kept_again_with_info(front):
    add_second_kept(front, default=True)
    evil_info(front)


def another_default(front):
    front["configs"].insert(0, {"config_name": "other", "data_files": [EVIL], "default": True})


def named_default(front):
    """`datasets` takes a config of this name for the default one, whatever else says so."""
    front["configs"].append({"config_name": "default", "data_files": [EVIL]})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (kept_again_with_info, r"load_dataset\('me/best'\) gives the config 'kept' from extra/evil.parquet"),
        (add_second_kept, "configs in the front matter has 'kept' more than once"),
        (evil_info, "gives other columns or types than the files hold"),
        (another_default, "load_dataset cannot open it: .*several default configs"),
        (named_default, "load_dataset cannot open it: .*several default configs"),
        (lambda front: front["configs"][0].update(filters=[["im_rank", "<", 3]]), "reads filters"),
    ],
)
def test_verify_catches_a_card_by_which_other_rows_are_loaded(pushed, change, match):
    pushed(change)
    verification = verify(REPO, sample=0)
    assert "loading" in failures(verification)
    assert re.search(match, told(verification, FAILED))


def test_verify_catches_a_file_that_overrules_the_card(pushed):
    configs = [{"config_name": "kept", "data_files": [EVIL], "default": True}]
    front = {"configs": configs, "dataset_info": []}
    evil_info(front)
    pushed(lambda _: None, {".huggingface.yaml": yaml.safe_dump(front).encode()})
    assert load_dataset(REPO, split="train")["instruction"][:] == ["EVIL"]
    verification = verify(REPO, sample=0)
    assert failures(verification) == {"loading"}
    assert "gives the config 'kept' from extra/evil.parquet, not 'kept' as claimed" in told(verification, FAILED)


def test_verify_passes_other_configs_that_leave_ours_alone(pushed):
    pushed(lambda front: front["configs"].append({"config_name": "other", "data_files": [EVIL]}))
    verification = verify(REPO, sample=0)
    assert verification.ok
    assert "load_dataset gives these rows: kept, dropped" in told(verification, PASSED)


def test_verify_of_a_folder_looks_at_what_load_dataset_gives(published):
    folder = published(include_dropped=True)
    card = (folder / "README.md").read_text().replace("configs:\n- config_name: kept", "configs:\n- config_name: other")
    (folder / "README.md").write_text(card)
    assert "gives the config 'other'" in told(verify(folder, sample=0), FAILED)


def front(text):
    """A card of which the front matter is this text, before the real one."""
    return lambda card: card.replace("---\n", f"---\n{text}\n", 1)


def laughs(levels):
    """YAML in which each line stands for nine of the one before."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [lol]", *lines])


def reads(path):
    return lambda card: card.replace("path: kept/train-00000-of-00001.parquet", f"path: {path}")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (reads("http://127.0.0.1:9/x.parquet"), "reads 'http://127.0.0.1:9/x.parquet', which is no file of the repos"),
        (reads("hf://datasets/o/n/x.parquet"), "which is no file of the repository"),
        (reads("zip://x::http://127.0.0.1:9/x.zip"), "which is no file of the repository"),
        (reads("/etc/passwd"), "reads '/etc/passwd', which is no file of the repository"),
        (reads("~/x.parquet"), "which is no file of the repository"),
        (reads("kept/../../x.parquet"), "which is no file of the repository"),
        (reads("'..\\x.parquet'"), "which is no file of the repository"),
        (reads("extra/evil.parquet"), "gives the config 'kept' from extra/evil.parquet"),
        (reads("'*/*.parquet'"), "gives the config 'kept' from "),
        (
            lambda card: card.replace("configs:\n", "configs:\n- config_name: a\n"),
            "the first config, 'a', names no files",
        ),
        (front(laughs(30)), "stands for more than"),
        (front("a: " + "[" * 1000), "nested deeper than 64 levels"),
        (front("\n" * 2000), "1000 empty lines in a row"),
        (front("a: 1\n--- "), "has fences that not every reader takes"),
        (lambda card: "\n\n" + card, "begins with what only some readers take for front matter"),
        (lambda card: card.replace("---\n", "---  \n", 1), "has fences that not every reader takes"),
        (lambda card: card.replace("---\n", "---\na: b\rc: d\n", 1), "has fences that not every reader takes"),
        (lambda _: "\x1b[2K" * 2_000_000, "more than 4,194,304 bytes"),
        (lambda _: "# No front matter", "cannot open it|gives the config 'default'"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_verify_fails_a_card_that_leads_elsewhere_without_following_it(published, spy, change, match):
    folder = published(include_dropped=True)
    (folder / "README.md").write_text(change((folder / "README.md").read_text()))
    spied = spy()
    wrong = [check.told for check in verify(folder, sample=0).checks if check.name == "loading"]
    assert re.search(match, wrong[0])
    assert spied == []


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            ".huggingface.yaml",
            "configs:\n- config_name: kept\n  data_files: http://127.0.0.1:9/x",
            "no file of the repos",
        ),
        (".huggingface.yaml", laughs(30), "stands for more than"),
        (".huggingface.yaml", "- 1", "is no mapping"),
        ("dataset_infos.json", "[" * 100_000, "nested deeper than"),
        ("dataset_infos.json", "<html>", "is not JSON"),
        ("dataset_infos.json", "[1]", "load_dataset cannot open it"),
        ("dataset_infos.json", b"\xff", "is not UTF-8"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_verify_fails_a_file_beside_the_card_that_cannot_be_read(published, spy, name, content, match):
    folder = published(include_dropped=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    spied = spy()
    wrong = [check.told for check in verify(folder, sample=0).checks if check.name == "loading"]
    assert re.search(match, wrong[0])
    assert spied == []


@pytest.fixture
def spy(monkeypatch):
    """From the call on: addresses to which a connection was made or tried."""

    def start():
        addresses = []
        monkeypatch.setattr("socket.socket.connect", lambda self, address: addresses.append(address) or self.close())
        return addresses

    return start
