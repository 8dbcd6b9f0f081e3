"""Forgeries of which everything that follows is made right again → what verification says of them."""

import math
import re

import pytest
from forging import ASKED, EVALUATION, FACTS, REPO, RULE, claim_blocks, edit, forge
from verifying import FAILED, NOT_CHECKED, edit_manifest, told

from im_datasets import mine, push_selected, verify
from im_datasets.common.errors import HubError

KEPT_SHARD = "kept/train-00000-of-00001.parquet"


def test_the_selection_has_every_reason_to_drop_a_row(forge_selected):
    assert set(forge_selected(**ASKED).reasons) == {
        "below the cut",
        "over the quota",
        "contaminated",
        "near-duplicate",
        "unscorable: empty response",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"include_dropped": True},
        {"include_dropped": True, "include_scores": True, "columns": "original"},
        {"include_scores": True},
        {"scores_only": True},
        {},
        {"columns": "original"},
    ],
)
def test_an_honest_publication_passes_before_and_after_the_forger_had_it(lay, forge_source, options):
    folder = lay(options=options)
    assert told(verify(folder, sample="all", source=forge_source, evaluation=EVALUATION), FAILED) == ""
    forge(folder, lambda forged: None)
    assert told(verify(folder, sample="all", source=forge_source, evaluation=EVALUATION), FAILED) == ""


# What is forged → who tells of it, and how.
def no_indicators(forged):
    forged.record["indicators"] = []


def one_indicator_less(forged):
    forged.record["indicators"] = [each for each in forged.record["indicators"] if each["name"] != "Length"]


def best_row_dropped(reason, twin=-1):
    def change(forged):
        forged.drop(1, reason, forged.kept[0]["im_row"] if twin is None else twin)
        forged.rank()

    return change


def best_row_without_value(stated):
    def change(forged):
        row = forged.drop(1, f"unscorable: {stated}")
        row.update({name: math.nan for name in row if name.startswith("im_") and isinstance(row[name], float)})
        row["im_unscorable"] = stated
        forged.rank()

    return change


def better_below_the_cut(forged):
    forged.kept.append(forged.kept.pop(0))
    forged.drop(len(forged.kept) - 1, "below the cut")
    forged.rank()


def keep_one(reason):
    def change(forged):
        forged.keep(next(row for row in forged.dropped if row["im_reason"] == reason))
        forged.rank()

    return change


def keep_an_empty_response(forged):
    row = next(row for row in forged.dropped if row["im_unscorable"])
    row |= {name: 50.0 for name in row if name.startswith("im_") and isinstance(row[name], float)} | {
        "im_unscorable": ""
    }
    forged.keep(row)
    forged.rank()


def better_values(forged):
    row = forged.kept[-1]
    row["im_output_length"] += 500.0
    forged.rank()


def other_text(forged):
    forged.kept[0]["output"] = "Buy now."


def other_text_with_its_scores(forged):
    """Words exchanged one for one, so that every score stays what it was."""
    forged.kept[0]["output"] = forged.kept[0]["output"].replace("stone", "river", 1)


def texts_in_a_hidden_column(forged):
    for rows in forged.tables.values():
        for row in rows:
            row["q"], row["a"] = row.pop("instruction"), row.pop("output")
            row["instruction"], row["output"] = "Whom shall I trust?", "Me."
    forged.record["columns"]["fields"] = {"instruction": "q", "response": "a"}


def a_column_nobody_wrote(forged):
    for rows in forged.tables.values():
        for row in rows:
            row["im_reward"] = 9.9


def one_row_less(forged):
    forged.dropped.pop(0)
    forged.rank()


def in_record(**fields):
    return lambda forged: forged.record.update(fields)


def in_source(**fields):
    return lambda forged: forged.record["source"].update(fields)


def in_selection(**fields):
    return lambda forged: forged.selection.update(fields)


def in_length(**fields):
    return lambda forged: forged.indicator("Length").update(fields)


def in_rule(**fields):
    return lambda forged: forged.record["rule"].update(fields)


TABLES = {
    "the indicators are emptied": (no_indicators, FAILED, "im_output_length, which the rule reads, is of no listed"),
    "one indicator is left out": (
        one_indicator_less,
        FAILED,
        "im_output_length, which the rule reads, is of no listed",
    ),
    "an indicator writes nothing": (in_length(writes=[]), FAILED, "im_output_length, which the rule reads, is of no"),
    "an indicator writes less": (
        in_length(writes=["im_output_length"]),
        FAILED,
        "Length writes im_input_length, im_ou",
    ),
    "an indicator of another version": (
        in_length(version="99"),
        NOT_CHECKED,
        r"reads im_output_length\): it is of version",
    ),
    "an indicator of somebody's own": (
        in_length(name="Own"),
        NOT_CHECKED,
        r"reads im_output_length\): it is no indicator",
    ),
    "an indicator with other settings": (
        in_length(settings={"tokenizer": "x"}),
        NOT_CHECKED,
        r"reads im_output_length\): .*x",
    ),
    "a column that nobody wrote": (a_column_nobody_wrote, NOT_CHECKED, "im_reward: no listed indicator wrote it"),
    "better values": (better_values, FAILED, "im_output_length: 1 of 24 rows score otherwise"),
    "another text": (other_text, FAILED, "im_output_length: 1 of 24 rows score otherwise"),
    "texts in a hidden column": (
        texts_in_a_hidden_column,
        NOT_CHECKED,
        "scores are of instruction=q, response=a; a reader",
    ),
    "best row: any reason": (best_row_dropped("spam"), FAILED, r"no selection drops rows for 'spam' \(row 3\)"),
    "best row: contaminated": (best_row_dropped("contaminated"), NOT_CHECKED, "that 2 rows repeat evaluation texts"),
    "best row: over the quota": (
        best_row_dropped("over the quota"),
        FAILED,
        "row 3: dropped as over the quota, and its gr",
    ),
    "best row: near-duplicate of none": (
        best_row_dropped("near-duplicate"),
        FAILED,
        "row 3: a near-duplicate of no kept",
    ),
    "best row: near-duplicate of another": (
        best_row_dropped("near-duplicate", None),
        FAILED,
        "row 3: dropped as a near-duplicate and less alike",
    ),
    "best row: could not be checked": (
        best_row_dropped("could not be checked: empty response"),
        FAILED,
        "row 3: the reason for having no score is another one",
    ),
    "best row: below the cut": (best_row_dropped("below the cut"), FAILED, "dropped as below the cut score better"),
    "best row: unscorable, with its score": (
        best_row_dropped("unscorable: x"),
        FAILED,
        "row 3: the reason does not go",
    ),
    "best row: no response": (
        best_row_without_value("empty response"),
        FAILED,
        "row 3: the reason for having no score",
    ),
    "best row: no value": (
        best_row_without_value("no im_output_length"),
        FAILED,
        "im_output_length: 1 of 24 rows score",
    ),
    "a near-duplicate is kept": (keep_one("near-duplicate"), FAILED, "nearly repeats a better one"),
    "one over the quota is kept": (keep_one("over the quota"), FAILED, "4 rows of one topic are kept, the quota is 3"),
    "an empty response is kept": (keep_an_empty_response, FAILED, "row 20: the reason for having no score is another"),
    "no near-duplicates were asked for": (
        in_selection(near_duplicates=None, embedder=None),
        FAILED,
        "rows were dropped as 'near-duplicate', which the selection was not asked for",
    ),
    "no evaluation texts were": (
        in_selection(exclude_contaminated=None, evaluation_sha256=None),
        FAILED,
        "rows were dropped as 'contaminated', which the selection was not asked for",
    ),
    "no quota was": (in_selection(per_group=None), FAILED, "dropped as 'over the quota', which the selection was not"),
    "near-duplicates from a lower cosine on": (
        in_selection(near_duplicates=0.5),
        FAILED,
        "nearly repeats a better one",
    ),
    "near-duplicates from a higher one on": (in_selection(near_duplicates=1.0), FAILED, "less alike than 1.0"),
    "more rows were asked for": (
        in_selection(top_k=9),
        FAILED,
        "1 rows are said to be wanting, though there were more",
    ),
    "a share was asked for": (in_selection(top_k=None, fraction=0.9), FAILED, "fraction=0.9 makes 20 kept rows, not 8"),
    "a threshold was": (in_selection(top_k=None, threshold=-9.0, shortfall=0), FAILED, "worse than the threshold -9.0"),
    "no size was": (in_selection(top_k=None), FAILED, "asked for no size"),
    "another embedder": (in_selection(embedder={"id": "a/b", "revision": "c", "dtype": "float32"}), NOT_CHECKED, "a/b"),
    "a row is left out, its neighbours are not": (one_row_less, FAILED, "im_knn_6: 10 of 23 rows score otherwise"),
    "another source": (in_source(kind="hub", id="good/rows", revision="0" * 40), NOT_CHECKED, "good/rows at 0+: pass"),
    "another fingerprint": (in_source(fingerprint="0"), NOT_CHECKED, "that these rows are those of rows.jsonl"),
    "a field of the source that nobody knows": (
        in_source(audited="yes"),
        NOT_CHECKED,
        "source.audited: nothing is kno",
    ),
    "a field of the selection that nobody knows": (in_selection(by="God"), NOT_CHECKED, "selection.by: nothing is kno"),
    "the rule praises itself": (
        in_rule(caveats=["None."]),
        NOT_CHECKED,
        "'long answers' is none that im-datasets ships",
    ),
    "a dtype that allows more": (
        in_length(model={"id": "x", "dtype": "bfloat16"}),
        FAILED,
        "the record names a model, an",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_forgery_of_rows_and_record_is_told(no_loading, lay, name):
    change, outcome, match = TABLES[name]
    folder = lay()
    forge(folder, change)
    verification = verify(folder, sample="all")
    assert re.search(match, told(verification, outcome)), told(verification, outcome)
    assert verification.ok == (outcome == NOT_CHECKED), told(verification, FAILED)


def test_a_share_that_takes_for_ever_is_refused(no_loading, lay):
    with pytest.raises(HubError, match=r"fraction of the selection is '1e999999999'; it must be a finite number"):
        forge(lay(), in_selection(top_k=None, fraction="1e999999999"))


HANDED_OVER = {
    "another text with the same scores": (other_text_with_its_scores, "kept: row 0 is another one in the source"),
    "a row is left out": (one_row_less, "the source makes 24 rows to score, claimed are 23"),
    "another fingerprint": (in_source(fingerprint="0"), "claimed is 0"),
    "fewer rows": (in_source(rows=5), "the source has 24 rows, claimed are 5"),
    "best row: contaminated": (best_row_dropped("contaminated"), "row 3 was dropped as contaminated and repeats no"),
    "a contaminated row is kept": (keep_one("contaminated"), "kept row 2 repeats an evaluation text"),
}


@pytest.mark.parametrize("name", HANDED_OVER)
def test_a_forgery_is_told_by_source_and_evaluation_texts(no_loading, lay, forge_source, name):
    change, match = HANDED_OVER[name]
    folder = lay()
    forge(folder, change)
    verification = verify(folder, sample=1, source=forge_source, evaluation=EVALUATION)
    assert match in told(verification, FAILED)


def other_numbers(forged):
    for row in [*forged.kept, *forged.dropped]:
        row["im_row"] = 23 - row["im_row"]
        row["im_duplicate_of"] = row.get("im_duplicate_of", -1)
    for row in forged.kept:
        del row["im_duplicate_of"]
    for row in forged.dropped:
        row["im_duplicate_of"] = 23 - row["im_duplicate_of"] if row["im_duplicate_of"] >= 0 else -1


def test_rows_under_other_numbers_are_told_by_the_source(lay, forge_source):
    folder = lay()
    forge(folder, other_numbers)
    assert "is another one in the source" in told(verify(folder, source=forge_source), FAILED)


def test_evaluation_texts_that_are_not_those_of_the_selection_settle_nothing(lay):
    verification = verify(lay(), evaluation=["Another text, of no use here."])
    assert "the 1 texts given are not the 1 of the selection" in told(verification, NOT_CHECKED)
    assert verification.ok


def test_a_source_that_cannot_be_read_settles_nothing(lay, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"instruction": "Name a fr', encoding="utf-8")
    verification = verify(lay(), source=tmp_path / "broken.jsonl")
    assert "those of rows.jsonl: line 1 of broken.jsonl is not JSON" in told(verification, NOT_CHECKED)
    assert verification.ok


EMBEDDED = {
    "an indicator is left out": (
        lambda f: f.record.update(indicators=[i for i in f.record["indicators"] if i["name"] != "Quality"]),
        FAILED,
        "im_quality, which the rule reads, is of no listed indicator",
    ),
    "another coefficient of the shipped rule": (
        lambda f: (in_rule(intercept=5.0)(f), f.rank()),
        FAILED,
        "the recorded rule is not the rule 'embedded'",
    ),
    "a shipped rule without its caveats": (in_rule(caveats=[]), FAILED, "the recorded rule is not the rule 'embedded'"),
    "another model's name": (
        lambda f: f.indicator("Quality")["model"].update(id="best/model"),
        FAILED,
        "names best/model",
    ),
    "no model": (lambda f: f.indicator("Quality").update(model=None), FAILED, "the record names no model"),
    "a dtype that allows more": (
        lambda f: f.indicator("Quality")["model"].update(dtype="bfloat16"),
        FAILED,
        "Quality is set to float32, its model is recorded as bfloat16",
    ),
    "distances that nobody has": (lambda f: f.dropped[0].update(im_knn_6=0.1), FAILED, "im_knn_6: 1 of 24 rows score"),
    "a column twice": (lambda f: f.record["indicators"].append(f.indicator("MTLD")), FAILED, "im_mtld is written by 2"),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_forgery_with_models_is_told(no_loading, lay, name):
    change, outcome, match = EMBEDDED[name]
    folder = lay({"rule": "embedded"})
    forge(folder, change)
    assert match in told(verify(folder, sample="all"), outcome)


def keep_column(name, value):
    def change(forged):
        for row in forged.kept:
            row[name] = value

    return change


OTHER_FORMS = {
    "scores that differ from those of the rows": (
        {"include_scores": True},
        lambda f: f.tables["scores"][0].update(im_mtld=9.0) or f.tables["scores"][0].update(im_input_length=99.0),
        FAILED,
        "im_input_length of kept is another one in scores",
    ),
    "better scores without texts": (
        {"scores_only": True},
        lambda f: None,
        NOT_CHECKED,
        "no row was scored again: texts and scores were not both published",
    ),
    "dropped rows that nobody sees": (
        {},
        lambda f: f.selection.update(dropped=10**6, reasons={"below the cut": 10**6}),
        NOT_CHECKED,
        "that 1,000,000 rows were dropped, and why",
    ),
    "columns that are not the original ones": (
        {"columns": "original"},
        keep_column("im_rank", 1),
        FAILED,
        "claimed are 'original'",
    ),
    "kept rows without scores": ({"columns": "original"}, lambda f: None, NOT_CHECKED, "the scores were not published"),
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_a_forgery_of_another_form_of_publication_is_told(no_loading, lay, name):
    options, change, outcome, match = OTHER_FORMS[name]
    folder = lay({}, options)
    forge(folder, change)
    assert match in told(verify(folder, sample="all"), outcome)


def in_card(old, new, *, claimed=False):
    def change(folder):
        card = (folder / "README.md").read_text()
        assert old in card
        (folder / "README.md").write_text(card.replace(old, new, 1))
        if claimed:
            claim_blocks(folder)

    return change


def put(path, content=b""):
    def change(folder):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return change


BLOCK = "<!-- im-datasets:begin selection -->"
END = "<!-- im-datasets:end selection -->"

CARDS = {
    "a number, with its digest": (
        in_card("| **8** |", "| **9** |", claimed=True),
        FAILED,
        "does not tell what the rows",
    ),
    "a part twice": (
        in_card("\n<!-- im-datasets:begin", f"\n{BLOCK}\nBest.\n{END}\n\n<!-- im-datasets:begin"),
        FAILED,
        "selection begins twice",
    ),
    "a part within another": (
        in_card("## The rule", f"{BLOCK}\nBest.\n{END}\n## The rule"),
        FAILED,
        "selection begins twice",
    ),
    "a part of the forger's own": (
        in_card(BLOCK, f"<!-- im-datasets:begin audit -->\nAll is well.\n<!-- im-datasets:end audit -->\n{BLOCK}"),
        FAILED,
        "the part audit is not as it was pushed",
    ),
    "a part of the forger's own that is claimed": (
        in_card(
            BLOCK, f"<!-- im-datasets:begin audit -->\nYes.\n<!-- im-datasets:end audit -->\n{BLOCK}", claimed=True
        ),
        FAILED,
        "the part audit, as it was pushed, does not tell",
    ),
    "an end that is elsewhere": (
        in_card(END, "", claimed=True),
        FAILED,
        "the markers of the generated parts are damaged",
    ),
    "a part that is hidden": (
        in_card(BLOCK, f"<details hidden>\n\n{BLOCK}"),
        NOT_CHECKED,
        "words outside its generated",
    ),
    "prose": (
        in_card("\n<!-- im-datasets:begin", "\nThe best.\n<!-- im-datasets:begin"),
        NOT_CHECKED,
        "what people wrote on",
    ),
    "a field of the front matter": (in_card("---\n", "---\nviewer: false\n"), NOT_CHECKED, "the field viewer of its"),
    "a tag more": (in_card("tags:\n", "tags:\n- peer-reviewed\n"), NOT_CHECKED, "the field tags of its front matter"),
    "a hidden config": (
        in_card("configs:\n", "configs:\n- config_name: extra\n  data_files: extra/x.parquet\n"),
        NOT_CHECKED,
        "1 configs that the manifest does not name: extra",
    ),
    "an extra data file": (
        put("extra/x.parquet"),
        NOT_CHECKED,
        "1 files that the manifest does not name: extra/x.parquet",
    ),
    "an extra shard": (put("kept/train-00001-of-00001.parquet"), NOT_CHECKED, "kept/train-00001-of-00001.parquet"),
    "a file of infos": (put("dataset_infos.json", b"{}"), NOT_CHECKED, "does not name: dataset_infos.json"),
    "a file that datasets reads": (
        put(".huggingface.yaml", b"a: 1\n"),
        NOT_CHECKED,
        "does not name: .huggingface.yaml",
    ),
    "a script": (put("published.py", b"print(1)\n"), NOT_CHECKED, "does not name: published.py"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_forgery_of_card_and_repository_is_told(no_loading, lay, name):
    change, outcome, match = CARDS[name]
    folder = lay()
    change(folder)
    verification = verify(folder, sample=0)
    assert match in told(verification, outcome), (told(verification, FAILED), told(verification, NOT_CHECKED))


MANIFESTS = {
    "metadata": (
        lambda m: m["card"]["metadata"].pop("license"),
        FAILED,
        "license of the front matter, as it was pushed",
    ),
    "facts": (lambda m: m["card"]["facts"].update(repo_id="you/other"), FAILED, "the card is of you/other"),
    "blocks": (lambda m: m["card"]["blocks"].pop("selection"), FAILED, "the part selection is not as it was pushed"),
    "unscorable": (lambda m: m["record"].update(unscorable={}), FAILED, "claimed are {}"),
    "unscored": (lambda m: m["record"]["indicators"][0].update(unscored=7), FAILED, "rows without a value, claimed 7"),
    "statistics": (lambda m: m["record"].update(statistics={}), FAILED, "the record lacks the statistics of"),
    "size": (lambda m: m["files"][KEPT_SHARD].update(size=1), FAILED, "bytes, claimed are 1"),
    "notes": (lambda m: m["record"]["columns"].update(notes=["Checked by hand."]), FAILED, "record.columns.notes"),
    "layout": (lambda m: m["record"]["columns"].update(layout="x"), FAILED, "record.columns.layout"),
    "more of the columns": (lambda m: m["record"]["columns"].update(by="me"), FAILED, "record.columns.by"),
    "a rank": (lambda m: m.update(columns="some"), FAILED, "names the columns 'some'"),
    "another repository": (lambda m: m.update(repo_id="you/other"), FAILED, "the manifest of you/other"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_forgery_of_the_manifest_alone_is_told(no_loading, lay, name):
    change, outcome, match = MANIFESTS[name]
    folder = lay()
    edit_manifest(folder, change)
    assert match in told(verify(folder, sample=0), outcome)


def test_ranks_that_are_not_those_of_the_scores_are_told(lay):
    folder = lay()

    def swap(forged):
        first, second = forged.dropped[0], forged.dropped[1]
        first["im_rank"], second["im_rank"] = second["im_rank"], first["im_rank"]

    forge(folder, swap)
    assert "a row with a better score has a worse rank" in told(verify(folder, sample=0), FAILED)


def test_no_forgery_changes_what_verification_says_of_a_model_it_cannot_have(lay):
    """The rule's own column is named where its indicator cannot be run again."""
    folder = lay()
    edit(folder, lambda m: m["record"]["indicators"][0].update(name="FunctionIndicator"))
    assert "runs a function of its publisher's" in told(verify(folder, sample=2), NOT_CHECKED)


def test_a_selection_of_fewer_rows_than_its_record_names_is_told_by_the_source(
    hub, quick_figures, forge_source, tmp_path
):
    """A forger who runs everything anew leaves no trace but the source."""
    rows = forge_source.read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(rows[3:]))
    mined = mine(tmp_path / "rows.jsonl", tmp_path / "mined", rule=RULE, top_k=8, **FACTS, progress=False)
    push_selected(mined.selection, REPO, **FACTS, include_dropped=True)
    verification = verify(REPO, sample="all")
    assert verification.ok
    assert "that these rows are those of rows.jsonl: pass --source a copy of it" in told(verification, NOT_CHECKED)
    assert "the source has 24 rows, claimed are 21" in told(verify(REPO, sample=0, source=forge_source), FAILED)
