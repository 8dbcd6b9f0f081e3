"""Verification finds every kind of tampering, and the whole circle from mining to a pull request holds."""

import hashlib
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, Value, load_dataset
from markupsafe import escape
from typer.testing import CliRunner

from im_datasets import mine, push_selected, verify
from im_datasets.cli.main import app
from im_datasets.common.errors import HubError
from im_datasets.hub import rescoring
from im_datasets.hub.checks import Outcome
from im_datasets.indicators import FunctionIndicator
from im_datasets.indicators.settings import rebuild
from im_datasets.report.templates import as_code
from im_datasets.rules.linear import LinearRule, Term
from im_datasets.scoring.record import IndicatorRecord

REPO = "me/best"
PASSED, FAILED, NOT_CHECKED = Outcome
KEPT, DROPPED = "kept/train-00000-of-00001.parquet", "dropped/train-00000-of-00001.parquet"
ROWS = [
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Name three primary colours.", "Red, yellow and blue are the primary colours."),
    ("How do bees make honey?", "Bees gather nectar and thicken it into honey inside the hive."),
    ("Why is the sky blue?", "Air scatters the blue part of sunlight more than the red part."),
    ("What does a thermometer measure?", "A thermometer measures temperature."),
    ("Explain what a verb is.", "Explain what a verb is."),
    ("Write a haiku about rain.", ""),
    ("How long is a marathon?", "Bees gather nectar and thicken it into honey inside the hive."),
    ("Name a fruit.", "An apple is a fruit that grows on trees."),
]


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
def waits(monkeypatch):
    """Seconds waited, without waiting."""
    waited = []
    monkeypatch.setattr("im_datasets.hub.client.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=waited.append))
    return waited


def failures(verification):
    return {check.name for check in verification.checks if check.outcome == FAILED}


def told(verification, outcome):
    return "\n".join(check.told for check in verification.checks if check.outcome == outcome)


def rewrite(folder, path, change):
    """Change one column of a shard and make its checksum right again, as a careful forger would."""
    rows = Dataset(pq.read_table(folder / path))
    change(rows).to_parquet(folder / path)
    manifest = json.loads((folder / "instructmining.json").read_text())
    manifest["files"][path]["sha256"] = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    (folder / "instructmining.json").write_text(json.dumps(manifest))


def set_value(column, row, value):
    def change(rows):
        values = rows[column][:]
        values[row] = value
        features = rows.features
        return rows.map(lambda _, place: {column: values[place]}, with_indices=True, features=features)

    return change


def edit_manifest(folder, change):
    manifest = json.loads((folder / "instructmining.json").read_text())
    change(manifest)
    (folder / "instructmining.json").write_text(json.dumps(manifest))


def test_verify_passes_what_was_pushed(published):
    verification = verify(published(include_dropped=True), sample=9)
    assert verification.ok
    assert failures(verification) == set()
    for column in ("im_quality", "im_mtld", "im_similarity", "im_input_length", "im_knn_6"):
        assert f"{column}: 9 rows scored again agree" in told(verification, PASSED)
    assert told(verification, NOT_CHECKED) == ""


def test_verify_says_what_it_could_not_check_where_one_side_is_missing(published):
    verification = verify(published(), sample=4)
    assert verification.ok
    assert "the scores of the dropped rows were not published" in told(verification, NOT_CHECKED)
    assert "KNNDistance: it compares all rows, for which both sides with texts" in told(verification, NOT_CHECKED)


@pytest.mark.parametrize("options", [{"columns": "original", "include_scores": True}, {"scores_only": True}])
def test_verify_reads_every_form_of_publication(published, options):
    verification = verify(published(**options), sample=9)
    assert verification.ok, verification
    assert "scores are what the rule 'embedded' gives" in told(verification, PASSED)
    assert "every number on it follows from the rows and the record" in told(verification, PASSED)


def test_verify_of_a_rule_with_a_local_model_says_that_it_cannot_be_had(hub, mined, tmp_path):
    record, place = mined.record, {"model": str(tmp_path / "mini"), "weights": "sha256:0a"}
    indicators = [
        replace(each, settings={**each.settings, "embedder": {"model": place["model"]}})
        if each.name == "Similarity"
        else each
        for each in record.indicators
    ]
    rule = replace(record.rule, name="fitted", indicators={"Similarity": {"embedder": place}})
    given = {"license": "cc0-1.0", "language": "en", "record": replace(record, rule=rule, indicators=indicators)}
    push_selected(mined.selection, REPO, **given)
    verification = verify(REPO, sample=4)
    assert verification.ok
    assert "Similarity: its model 'mini' was a local folder" in told(verification, NOT_CHECKED)


def test_verify_of_a_folder_of_mine_checks_what_it_can(mined):
    verification = verify(mined.folder, sample=3)
    assert verification.ok
    assert "a folder of mine holds no checksums" in told(verification, NOT_CHECKED)


def test_verify_catches_one_byte(published):
    folder = published(include_dropped=True)
    data = bytearray((folder / KEPT).read_bytes())
    data[100] ^= 1
    (folder / KEPT).write_bytes(bytes(data))
    verification = verify(folder)
    assert not verification.ok
    assert f"{KEPT} has another sha256 than claimed" in told(verification, FAILED)


def test_verify_catches_a_changed_row_whose_checksum_was_made_right(published):
    folder = published(include_dropped=True)
    rewrite(folder, KEPT, set_value("output", 2, "Something else altogether."))
    verification = verify(folder, sample=9)
    assert failures(verification) == {"sample"}
    assert re.search(r"im_quality: 1 of 9 rows score otherwise \(row \d", told(verification, FAILED))


def test_verify_catches_a_changed_score(published):
    folder = published(include_dropped=True)
    rewrite(folder, DROPPED, set_value("im_log_loss", 0, 9.0))
    verification = verify(folder, sample=0)
    assert "1 scores are not what the rule gives" in told(verification, FAILED)


def test_verify_catches_a_changed_indicator_with_a_score_to_match(published):
    folder = published(include_dropped=True)
    rows = Dataset(pq.read_table(folder / DROPPED))
    rewrite(folder, DROPPED, set_value("im_quality", 0, -50.0))
    rewrite(folder, DROPPED, set_value("im_log_loss", 0, 50.0))
    verification = verify(folder, sample=9)
    assert "rule" not in failures(verification)
    assert {"sample", "statistics", "card"} <= failures(verification)
    assert f"(row {rows['im_row'][0]})" in told(verification, FAILED)


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
    from im_datasets.report.card import block_digests, find_blocks

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


# What load_dataset gives is what was checked

EVIL = {"split": "train", "path": "extra/evil.parquet"}


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


def test_verify_says_that_it_read_the_local_cache(hub, pushed, waits):
    assert NOT_CHECKED not in {check.outcome for check in verify(REPO, sample=1).checks if check.name == "commit"}
    hub.fail("GET", "/revision/|/api/datasets", drop=True, times=99)
    pushed(lambda front: front.update(license="mit"))
    verification = verify(REPO, sample=0)
    assert verification.ok
    assert "the Hub cannot be reached, so this is the copy of it in the local cache" in told(verification, NOT_CHECKED)


def test_verify_reads_the_commit_of_now(hub, pushed):
    assert verify(REPO, sample=0).ok
    pushed(lambda front: front.update(license="mit"))
    verification = verify(REPO, sample=0)
    assert verification.commit == hub.store.repos["dataset", REPO].refs["main"]
    assert "license in the front matter is mit, pushed was cc0-1.0" in told(verification, FAILED)


def test_verify_refuses_terms_that_no_push_stated(pushed):
    pushed(lambda front: front.update(license_name="free for all", license_link="https://example.org"))
    wrong = told(verify(REPO, sample=0), FAILED)
    assert "license_name in the front matter is free for all, pushed was none" in wrong
    assert "license_link in the front matter is https://example.org, pushed was none" in wrong


@pytest.mark.parametrize("name", ["politeness", "$p_{|`<b>*x"])
def test_an_indicator_whose_column_has_another_prefix_is_published_and_verified(hub, tmp_path, name):
    def polite(batch):
        return {name: [float("nan") if "Rome" in text else float(len(text)) for text in batch["response"]]}

    politeness = FunctionIndicator(function=polite, names=(name,))
    lines = [json.dumps({"instruction": x, "output": y}) for x, y in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    rule = LinearRule("polite", "Polite rows", 0.0, (Term(name, -0.1),))
    mined = mine(
        tmp_path / "rows.jsonl",
        tmp_path / "mined",
        rule=rule,
        indicators=[politeness],
        top_k=4,
        license="cc0-1.0",
        language="en",
        progress=False,
    )
    page = (tmp_path / "mined" / "report.html").read_text()
    assert f"This row has no score: <bdi>no {escape(name)}</bdi>." in page
    assert f"<h3><code>{escape(name)}</code></h3>" in page
    push_selected(mined.selection, REPO, include_dropped=True, license="cc0-1.0", language="en")
    verification = verify(REPO, sample=9)
    assert told(verification, FAILED) == ""
    assert as_code(name) in hub.store.read(REPO, "README.md").decode()


@pytest.mark.parametrize("options", [{"include_dropped": True}, {"scores_only": True}])
def test_rows_made_from_turns_are_published_with_their_place_and_verified(hub, tmp_path, options):
    def turns(pair):
        return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]

    talks = [turns(first) + turns(second) for first, second in zip(ROWS[:4], ROWS[4:8], strict=True)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    facts = {"license": "cc0-1.0", "language": "en"}
    mined = mine(tmp_path / "talks.jsonl", tmp_path / "mined", top_k=3, every_turn=True, progress=False, **facts)
    push_selected(mined.selection, REPO, **options, **facts)
    card = hub.store.read(REPO, "README.md").decode()
    assert "| `im_source_row` | the place in the source of the row that it was made from, from 0 |" in card
    assert told(verify(REPO, sample=8), FAILED) == ""


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
        (lambda m: m["configs"]["kept"].update(files=["../x.parquet"]), "counts", "outside of its folder"),
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


def _leaves(value, path=()):
    """Paths to every value inside, containers too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from _leaves(inner, (*path, key))


def test_verify_survives_any_change_of_a_claim(published):
    """Whatever stands in a stranger's manifest, the answer is a verdict or one clear error."""
    folder = published(include_dropped=True)
    original = json.loads((folder / "instructmining.json").read_text())
    places = [place for place in _leaves(original) if place[0] != "record" or len(place) < 4]
    outcomes = Counter()
    for number, place in list(enumerate(places))[::6]:  # one in six of each kind; all of them pass, in half a minute
        manifest = json.loads(json.dumps(original))
        inner = manifest
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = [None, "x", -1, [], {}, [[1]], {"a": 1}][number % 7]
        (folder / "instructmining.json").write_text(json.dumps(manifest))
        try:
            outcomes[verify(folder, sample=0).ok] += 1
        except HubError:
            outcomes["refused"] += 1
    assert outcomes[False] + outcomes["refused"] > sum(outcomes.values()) / 2


def test_verify_catches_a_missing_file(published):
    folder = published(include_dropped=True)
    (folder / "figures/indicators.png").unlink()
    assert "figures/indicators.png is missing" in told(verify(folder, sample=0), FAILED)
    (folder / KEPT).unlink()
    assert "cannot be read" in told(verify(folder, sample=0), FAILED)
    (folder / "README.md").unlink()


def test_verify_refuses_what_is_no_selection(tmp_path, hub):
    with pytest.raises(HubError, match=r"holds neither instructmining\.json nor record\.json"):
        verify(tmp_path)
    with pytest.raises(HubError, match="no folder /nowhere"):
        verify("/nowhere")
    (tmp_path / "instructmining.json").write_text("{}")
    with pytest.raises(HubError, match="is not one of im-datasets"):
        verify(tmp_path)
    (tmp_path / "instructmining.json").write_text('{"schema_version": 9}')
    with pytest.raises(HubError, match="has schema version 9; known: 1"):
        verify(tmp_path)


def test_verify_draws_the_same_sample_for_the_same_seed(published):
    folder = published(include_dropped=True)
    assert verify(folder, sample=2, seed=5) == verify(folder, sample=2, seed=5)
    assert verify(folder, sample=0).seed != verify(folder, sample=0).seed


# Indicators of a stranger's record


def recorded(name="Length", settings=None, **more):
    return IndicatorRecord(name, "1", ["x"], settings or {}, **more)


def test_rebuild_gives_the_recorded_indicator(mined):
    for record in mined.record.indicators:
        indicator = rebuild(record)
        assert type(indicator).__name__ == record.name
        assert json.loads(json.dumps(_plain(indicator))) == json.loads(json.dumps(record.settings))


def _plain(indicator):
    from dataclasses import asdict, is_dataclass

    return {n: asdict(v) if is_dataclass(v) else v for n, v in indicator.settings().items()}


def test_difference_counts_missing_values():
    left, right = np.array([1.0, np.nan, np.nan, 3.0]), np.array([1.1, np.nan, 2.0, np.nan])
    assert rescoring._difference(left, right).tolist() == pytest.approx([0.05, 0.0, np.inf, np.inf])


# The command line, and the whole circle


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def test_the_whole_circle(hub, mined):
    """mine → push → load_dataset → verify → change one byte → verify fails → push again → pull request."""
    pushed = run("push", mined.folder, REPO, "--include-dropped")
    assert pushed.exit_code == 0
    assert f"Check it: im-datasets verify {REPO}" in pushed.stdout
    assert load_dataset(REPO, split="train").to_list() == mined.selection.kept.to_list()

    verified = run("verify", REPO, "--sample", 3)
    assert verified.exit_code == 0
    assert "holds what it claims. Same sample again" in verified.stdout
    assert (
        "holds what it claims, as far as it could be checked (1 not checked)."
        in run("verify", REPO, "--sample", 0).stdout
    )

    good = hub.store.read(REPO, KEPT)
    hub.store.put(REPO, {KEPT: good[:100] + bytes([good[100] ^ 1]) + good[101:]})
    verified = run("verify", REPO, "--sample", 3)
    assert verified.exit_code == 1
    assert "does NOT hold what it claims" in verified.stdout

    with pytest.raises(HubError, match="is not as im-datasets left it"):
        run("push", mined.folder, REPO, "--include-dropped")
    assert run("push", mined.folder, REPO, "--include-dropped", "--overwrite").exit_code == 0
    assert hub.store.read(REPO, KEPT) == good
    assert "Nothing had changed" in run("push", mined.folder, REPO, "--include-dropped").stdout

    request = run("push", mined.folder, REPO, "--include-dropped", "--include-scores", "--create-pr")
    assert "Opened the pull request" in request.stdout
    assert run("verify", REPO, "--revision", "refs/pr/1", "--sample", 2).exit_code == 0
    assert "scores" not in json.loads(hub.store.read(REPO, "instructmining.json"))["configs"]


def test_push_command_keeps_what_was_added_to_the_card_of_mine(hub, mined, tmp_path):
    folder = tmp_path / "mined"
    shutil.copytree(mined.folder, folder)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("# Selected", "# My selected") + "\n## Thanks\n\nTo all.\n")
    assert run("push", folder, REPO, "--tag", "good").exit_code == 0
    pushed = hub.store.read(REPO, "README.md").decode()
    assert "# My selected" in pushed
    assert pushed.endswith("\n## Thanks\n\nTo all.\n")
    assert "path: kept/train-00000-of-00001.parquet" in pushed
    assert "config_name: dropped" not in pushed
    assert verify(REPO, sample=0).ok
    assert "Nothing had changed" in run("push", folder, REPO, "--tag", "good").stdout


def test_push_command_shows_a_dry_run(hub, mined):
    shown = run("push", mined.folder, REPO, "--dry-run", "--with-report")
    assert "report.html" in shown.stdout
    assert "+license: cc0-1.0" in shown.stdout
    assert "Nothing was sent" in shown.stdout
    assert hub.store.repos == {}


def test_push_command_interrupted_says_so(hub, mined, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("im_datasets.hub.repository.Repository._commit", interrupt)
    done = run("push", mined.folder, REPO)
    assert done.exit_code == 130
    assert "interrupted; a commit is made whole or not at all. Push again to be sure" in done.stderr


def test_push_command_says_that_it_made_a_branch(hub, mined):
    run("push", mined.folder, REPO)
    run("push", mined.folder, REPO, "--revision", "dev")
    refs = hub.store.repos["dataset", REPO].refs
    refs["main"] = refs.pop("dev")  # merged, and the branch deleted
    shown = run("push", mined.folder, REPO, "--revision", "dev", "--dry-run")
    assert "with a new branch dev." in shown.stdout
    shown = run("push", mined.folder, REPO, "--revision", "dev")
    assert re.search(r"Made the branch dev at \w{8}, which holds this selection already, of http", shown.stdout)
    assert f"im-datasets verify {REPO} --revision dev" in shown.stdout


def test_verify_command_prints_json(mined):
    shown = run("verify", mined.folder, "--sample", 0, "--json")
    assert json.loads(shown.stdout)["ok"] is True


def test_unscorable_rows_keep_their_reason(published):
    folder = published(include_dropped=True)
    dropped = Dataset(pq.read_table(folder / DROPPED))
    row = dropped["im_unscorable"][:].index("empty response")
    assert dropped.features["im_unscorable"] == Value("string")
    rewrite(folder, DROPPED, set_value("im_unscorable", row, "something else"))
    assert "the reason for having no score is another one" in told(verify(folder, sample=9), FAILED)


def test_docs_show_the_commands_of_the_transcript():
    from hub_server.transcript import MINE, STEPS

    page = (Path(__file__).parents[2] / "docs/publish-and-verify.md").read_text(encoding="utf-8")
    assert f"```bash\n{MINE}\n```" in page
    assert re.findall(r"^(?:\$ im-datasets|# ).*$", page.partition("```console")[2].partition("```")[0], re.M) == STEPS
