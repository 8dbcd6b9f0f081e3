"""Verification from mining to a pull request, in Python and on the command line."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from command_line import invoke as run
from datasets import load_dataset
from markupsafe import escape
from verifying import FAILED, KEPT, NOT_CHECKED, PASSED, REPO, ROWS, failures, told

from im_datasets import mine, push_selected, verify
from im_datasets.common.errors import HubError
from im_datasets.indicators import FunctionIndicator
from im_datasets.report.templates import as_code
from im_datasets.rules.linear import LinearRule, Term


def test_verify_passes_what_was_pushed(published):
    verification = verify(published(include_dropped=True), sample=9)
    assert verification.ok
    assert failures(verification) == set()
    for column in ("im_quality", "im_mtld", "im_similarity", "im_input_length", "im_knn_6"):
        assert f"{column}: 9 rows scored again agree" in told(verification, PASSED)
    left = told(verification, NOT_CHECKED).splitlines()
    assert [re.sub(r"^.*: ", "", line) for line in left] == [
        "what they show or hold, beside their sha256",
        "this is a folder",
        "pass --source a copy of it",
        "only the machine of the run knows",
        "its publisher states it and nobody else knows",
    ]


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


def test_verify_of_a_folder_of_mine_checks_what_it_can(mined):
    verification = verify(mined.folder, sample=3)
    assert verification.ok
    assert "a folder of mine holds no checksums" in told(verification, NOT_CHECKED)


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


def test_verify_draws_the_same_sample_for_the_same_seed(published):
    folder = published(include_dropped=True)
    assert verify(folder, sample=2, seed=5) == verify(folder, sample=2, seed=5)
    assert verify(folder, sample=0).seed != verify(folder, sample=0).seed


def test_the_whole_circle(hub, mined):
    """mine → push → load_dataset → verify → change one byte → verify fails → push again → pull request."""
    pushed = run("push", mined.folder, REPO, "--include-dropped")
    assert pushed.exit_code == 0
    assert f"Check it: im-datasets verify {REPO}" in pushed.stdout
    assert load_dataset(REPO, split="train").to_list() == mined.selection.kept.to_list()

    verified = run("verify", REPO, "--sample", 3)
    assert verified.exit_code == 0
    assert "holds what it claims, as far as it could be checked (5 not checked). Same sample again" in verified.stdout
    assert (
        "holds what it claims, as far as it could be checked (5 not checked)."
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
    printed = json.loads(shown.stdout)
    assert printed["ok"] is True
    assert {check["outcome"] for check in printed["checks"]} == {"passed", "not checked"}


def test_docs_show_the_commands_of_the_transcript():
    from hub_server.transcript import MINE, STEPS

    page = (Path(__file__).parents[3] / "docs/publish-and-verify.md").read_text(encoding="utf-8")
    assert f"```bash\n{MINE}\n```" in page
    assert re.findall(r"^(?:\$ im-datasets|# ).*$", page.partition("```console")[2].partition("```")[0], re.M) == STEPS
