"""Publications that look as if push had written them → what verification says that is not as push writes it."""

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from forging import ASKED, CARD, DEFAULT, FACTS, MANIFEST, REPO, RULE, edit, forge, source_rows
from verifying import FAILED, NOT_CHECKED, edit_manifest, told

from im_datasets import mine, push_selected, verify
from im_datasets.common.errors import HubError
from im_datasets.report.configs import Published

KEPT, SCORES = "kept/train-00000-of-00001.parquet", {"include_dropped": True, "include_scores": True}


# What is changed of the files → who tells of it, and how.
def put(path, content):
    def change(folder):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
        edit(folder, lambda m: m["files"].update({path: asdict(Published.of_file(folder / path))}))

    return change


def other_order(folder):
    edit(folder, lambda m: m.update(configs=dict(reversed(m["configs"].items()))))


def without_kept(folder):
    edit(folder, lambda m: m["files"].pop(m["configs"].pop("kept")["files"][0]))


def config_of_another_name(folder):
    """No card can be made with it, so the forger says that another version wrote it."""
    put("bonus/rows.parquet", (folder / KEPT).read_bytes())(folder)

    def name(manifest):
        manifest["configs"]["bonus"] = manifest["configs"]["kept"] | {"files": ["bonus/rows.parquet"]}
        manifest["package_version"] = "99"

    edit_manifest(folder, name)


def of_type(column, kind):
    def change(folder):
        table = pq.read_table(folder / KEPT)
        place = table.column_names.index(column)
        table = table.set_column(place, column, table.column(column).cast(kind)).replace_schema_metadata(None)
        pq.write_table(table, folder / KEPT)
        # No card can be made with them, and none needs to be: they are refused when they are read.
        edit_manifest(folder, lambda m: m["files"].update({KEPT: asdict(Published.of_file(folder / KEPT))}))

    return change


def in_file(name, old, new):
    def change(folder):
        (folder / name).write_text((folder / name).read_text().replace(old, new, 1))

    return change


FILES = {
    "a figure": (
        put("figures/indicators.png", b"x"),
        NOT_CHECKED,
        "figures/indicators.png, figures/score_distribution",
    ),
    "a report": (put("report.html", b"<script>"), NOT_CHECKED, "report.html: what they show or hold"),
    "a file more": (put("extra/evil.parquet", b"x"), FAILED, "extra/evil.parquet is neither rows nor a figure"),
    "dropped rows by default": (other_order, FAILED, "its configs are scores, dropped, kept; push writes"),
    "no kept rows": (without_kept, FAILED, "its configs are dropped, scores; push writes"),
    "a config more": (config_of_another_name, FAILED, "its configs are kept, dropped, scores, bonus; push writes"),
    "scores as texts": (
        of_type("im_log_loss", pa.string()),
        FAILED,
        "im_log_loss of the config kept holds string, not numbers",
    ),
    "values as texts": (
        of_type("im_output_length", pa.string()),
        FAILED,
        "im_output_length of the config kept holds string",
    ),
    "numbers as fractions": (
        of_type("im_row", pa.float64()),
        FAILED,
        "im_row of the config kept holds double, not whole",
    ),
    "a field twice": (in_file(CARD, "---\n", "---\nlicense: mit\n"), FAILED, "has 'license' twice"),
    "many fields": (
        in_file(CARD, "---\n", "---\na: 1\nb: 1\nc: 1\nd: 1\ne: 1\nz: 1\n"),
        NOT_CHECKED,
        "e and 1 more of its",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_disguise_of_the_files_is_told(lay, name):
    change, outcome, match = FILES[name]
    folder = lay(options=SCORES)
    change(folder)
    assert match in told(verify(folder, sample=0), outcome)


def test_a_manifest_that_names_something_twice_is_refused(lay):
    """Some readers take the first, some the last."""
    folder = lay()
    in_file(MANIFEST, "{", '{"repo_id": "you/other",')(folder)
    with pytest.raises(HubError, match="the name 'repo_id' comes twice"):
        verify(folder)


def test_files_of_tools_are_named_on_the_hub(hub, quick_figures, forge_selected):
    push_selected(forge_selected(), REPO, **FACTS)
    hub.store.put(REPO, {".cache/evil.parquet": b"x"})
    assert "does not name: .cache/evil.parquet" in told(verify(REPO, sample=0), NOT_CHECKED)


# What is changed of rows and claims → who tells of it, and how.
def column(name, value, sides=("kept", "dropped")):
    def change(forged):
        for row in (row for side in sides for row in forged.tables[side]):
            row[name] = value

    return change


def last_one_for(reason):
    def change(forged):
        rows = [row for row in forged.dropped if row["im_reason"] == "below the cut" and row["topic"] == "c"]
        rows[-1]["im_reason"] = reason

    return change


def ranks(rank):
    def change(forged):
        for place, row in enumerate(forged.kept):
            row["im_rank"] = rank(place)

    return change


def equal_scores(forged):
    """By a rule that says nothing any rows are the best ones."""
    forged.record["rule"]["terms"][0]["coefficient"] = 0.0
    forged.rank()
    forged.drop(0, "below the cut")
    for rank, row in enumerate([*forged.kept, *(row for row in forged.dropped if row["im_rank"])], 1):
        row["im_rank"] = rank


def no_rank(forged):
    """The others move up."""
    first, *rest = [row for row in forged.dropped if row["im_rank"]]
    first["im_rank"] = 0
    for row in rest:
        row["im_rank"] -= 1


def claim(*places, **changes):
    def change(forged):
        held = forged.manifest
        for place in places:
            held = held[place]
        held.update(changes)

    return change


UNKNOWN = "no listed indicator wrote it"
CLAIMS = {
    "a turn": (column("im_turn", 7), DEFAULT, NOT_CHECKED, f"im_turn: {UNKNOWN}"),
    "a row of the source": (column("im_source_row", 7), DEFAULT, NOT_CHECKED, f"im_source_row: {UNKNOWN}"),
    "kept or not": (column("im_kept", True), DEFAULT, NOT_CHECKED, f"im_kept: {UNKNOWN}"),
    "a reason to keep": (column("im_reason", "the best", ["kept"]), DEFAULT, NOT_CHECKED, f"im_reason: {UNKNOWN}"),
    "below, contaminated": (last_one_for("contaminated"), DEFAULT, FAILED, "ranks below the cut, where no row is"),
    "below, over the quota": (last_one_for("over the quota"), DEFAULT, FAILED, "ranks below the cut, where no row is"),
    "equal ranks": (
        ranks(lambda place: 1),
        {},
        FAILED,
        "the ranks 1, 1, 1, 1, 1 and 3 more of the kept rows leave out",
    ),
    "ranks with gaps": (ranks(lambda place: 3 * place + 1), {}, FAILED, "leave out rows that no reason accounts for"),
    "no ranks": (ranks(lambda place: place - 9), {}, FAILED, "leave out rows that no reason accounts for"),
    "a score without a rank": (no_rank, DEFAULT, FAILED, "a row with a score has no rank"),
    "equal scores": (equal_scores, DEFAULT, NOT_CHECKED, "ranks before a row of a lower number with the same score"),
    "more of the quota": (
        claim("selection", "per_group", fair=True),
        DEFAULT,
        NOT_CHECKED,
        "selection.per_group: nothing",
    ),
    "more of the embedder": (claim("selection", "embedder", x=1), DEFAULT, NOT_CHECKED, "selection.embedder: nothing"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_disguise_of_rows_and_claims_is_told(no_loading, lay, name):
    change, options, outcome, match = CLAIMS[name]
    folder = lay({} if options == {} or change is equal_scores else ASKED, options)
    forge(folder, change)
    assert match in told(verify(folder, sample=0), outcome)


def test_the_embedder_that_told_near_duplicates_is_the_one_that_is_named(no_loading, lay):
    folder = lay()
    forge(folder, claim("selection", "embedder", id="best/embedder"))
    assert "its model 'best/embedder' was a local folder" in told(verify(folder, sample=2), NOT_CHECKED)


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_scores_may_not_be_further_off_than_the_model_is(no_loading, lay, dtype):
    """Without its dtype among the settings the default one is run, and another one was allowed for."""

    def change(forged):
        quality = forged.indicator("Quality")
        quality["settings"]["embedder"].pop("dtype")
        quality["model"]["dtype"] = dtype
        for row in [*forged.kept, *forged.dropped]:
            row["im_quality"] = row["im_quality"] and row["im_quality"] + 0.03 * (-1) ** row["id"]
        forged.rank()

    folder = lay({"rule": "embedded"}, DEFAULT)
    forge(folder, change)
    expected = f"Quality: the model of its settings is in float32, recorded is {dtype}"
    assert expected in told(verify(folder, sample="all"), FAILED)


# Against the source.
@pytest.mark.parametrize("options", [{"columns": "original"}, {"columns": "original", "include_dropped": True}])
def test_rows_without_numbers_are_those_of_the_source(no_loading, lay, forge_source, options):
    folder = lay({}, options)
    assert told(verify(folder, sample=0, source=forge_source), FAILED) == ""
    rows = pq.read_table(folder / KEPT)
    place = rows.column_names.index("output")
    made_up = pa.array([*rows["output"].to_pylist()[:-1], rows["output"][0].as_py()])
    pq.write_table(rows.set_column(place, "output", made_up), folder / KEPT)
    edit(folder, lambda m: m["files"].update({KEPT: asdict(Published.of_file(folder / KEPT))}))
    assert "kept: the row in place 7 is none of the source" in told(verify(folder, source=forge_source), FAILED)


def test_files_and_revisions_of_the_source_are_told(no_loading, lay, forge_source):
    folder = lay()
    forge(folder, claim("record", "source", files=["other.jsonl"]))
    assert "that its files are other.jsonl: " in told(verify(folder, sample=0, source=forge_source), NOT_CHECKED)
    forge(folder, claim("record", "source", revision="2024"))
    assert "a file has no config and no revision" in told(verify(folder, sample=0, source=forge_source), FAILED)


@pytest.fixture
def publish(hub, quick_figures, tmp_path):
    """Mine rows with a column more, publish them, and lay them into a folder."""

    def lay(source):
        mined = mine(source, tmp_path / "mined", rule=RULE, top_k=8, **FACTS, progress=False)
        push_selected(mined.selection, REPO, **FACTS, include_dropped=True)
        for path, file in hub.store.repos["dataset", REPO].commit_at("main").files.items():
            (tmp_path / "laid" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "laid" / path).write_bytes(file.content)
        return tmp_path / "laid"

    return lay


def test_numbers_stand_for_the_same_names_as_in_the_source(no_loading, publish, tmp_path):
    rows = Dataset.from_list([row | {"label": row["id"] % 2} for row in source_rows()])
    rows = rows.cast(Features(rows.features | {"label": ClassLabel(names=["bad", "good"])}))
    rows.to_parquet(tmp_path / "rows.parquet")
    folder = publish(tmp_path / "rows.parquet")
    assert told(verify(folder, sample=0, source=tmp_path / "rows.parquet"), FAILED) == ""
    table = pq.read_table(folder / KEPT)
    features = table.schema.metadata[b"huggingface"].replace(b'["bad", "good"]', b'["good", "bad"]')
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), folder / KEPT)
    edit(folder, lambda m: m["files"].update({KEPT: asdict(Published.of_file(folder / KEPT))}))
    verification = verify(folder, sample=0, source=tmp_path / "rows.parquet")
    assert "kept: label has other names for its numbers than the source" in told(verification, FAILED)


def test_images_that_push_put_into_the_rows_are_no_other_rows(no_loading, publish, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(b"a picture")
    rows = Dataset.from_list([row | {"image": {"path": "a.png", "bytes": None}} for row in source_rows()])
    rows = rows.cast(Features(rows.features | {"image": Image()}))
    rows.to_parquet(tmp_path / "source" / "rows.parquet", batch_size=5)
    verification = verify(publish(tmp_path / "source"), sample=0, source=tmp_path / "source")
    assert told(verification, FAILED) == ""
    assert "image: images, sounds or the like, which are not compared" in told(verification, NOT_CHECKED)


def test_what_was_published_without_a_record_is_told(no_loading, lay):
    folder = lay()
    manifest = json.loads((folder / MANIFEST).read_text()) | {"record": None}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert "no two kept rows are: no record of the scoring was published" in told(verify(folder), NOT_CHECKED)
