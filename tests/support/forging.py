"""A competent forger: whatever is changed in a publication, checksums, counts, statistics and card follow it."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, SplitDict, SplitInfo, concatenate_datasets

from im_datasets import LinearRule
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.published import PublishedSelection
from im_datasets.report.card import render_card
from im_datasets.report.card_blocks import block_digests
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.report.configs import Published
from im_datasets.rules.linear import Term
from im_datasets.scoring.statistics import describe

MANIFEST, CARD = "instructmining.json", "README.md"
RULE = LinearRule("long answers", "Long answers first", 1.0, (Term("im_output_length", -0.01),))
"""A rule that needs no model."""

REPO = "me/forged"
FACTS = {"license": "cc0-1.0", "language": "en"}
EVALUATION = ["Describe in your own words how a glacier carves out a valley."]
WORDS = "stone river cloud garden winter engine letter bridge mirror candle forest harbour".split()  # noqa: SIM905


def source_rows() -> list[dict[str, Any]]:
    """Longer answers score better: rows 0 to 5 are the best, of which 1 repeats 0 and 2 repeats an evaluation text."""
    rows = []
    for number in range(24):
        word, other = WORDS[number % 12], WORDS[(number * 5 + 3) % 12]
        answer = f"{word} and {other}: " + " ".join(
            f"{WORDS[(number * k + k) % 12]} {k}" for k in range(1, 26 - number)
        )
        question = f"What has a {word} to do with a {other}, case {number}?"
        rows.append({"instruction": question, "output": answer, "topic": "abccccc"[number % 6], "id": number})
    rows[1] |= {"instruction": rows[0]["instruction"] + " ", "output": rows[0]["output"].removesuffix(" 25")}
    rows[2]["instruction"] = EVALUATION[0]
    rows[20]["output"] = ""
    return rows


DEFAULT = {"include_dropped": True}
ASKED = {"per_group": ("topic", 3), "near_duplicates": 0.98, "exclude_contaminated": EVALUATION}
"""What is asked of a push, and of a selection that has every reason to drop a row."""


Row = dict[str, Any]
Change = Callable[["Forged"], None]


@dataclass
class Forged:
    """A publication in the hands of a forger.

    Attributes:
        tables: Config name → its rows, to be changed as Python has them.
        manifest: What ``instructmining.json`` holds.
        features: Config name → the features that its rows keep; columns that are added get their own.
    """

    tables: dict[str, list[Row]]
    manifest: dict[str, Any]
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """The scoring record."""
        return self.manifest["record"]

    @property
    def selection(self) -> dict[str, Any]:
        """What is said of the selection."""
        return self.manifest["selection"]

    @property
    def kept(self) -> list[Row]:
        """Kept rows, best first."""
        return self.tables["kept"]

    @property
    def dropped(self) -> list[Row]:
        """Dropped rows, best first, those without a score at the end."""
        return self.tables["dropped"]

    def indicator(self, name: str) -> dict[str, Any]:
        """What the record says of one indicator."""
        return next(each for each in self.record["indicators"] if each["name"] == name)

    def drop(self, place: int, reason: str, twin: int = -1) -> Row:
        """Drop a kept row for a reason, and keep the one that would have been kept without it."""
        row = self.kept.pop(place) | {"im_reason": reason, "im_duplicate_of": twin}
        below = [other for other in self.dropped if other["im_reason"] in ("below the cut", "over the quota")]
        # Of the same group, so that its quota holds.
        better = next((other for other in below if other.get("topic") == row.get("topic")), None)
        if better is not None:
            self.dropped.remove(better)
            self.kept.append({name: better[name] for name in better if name not in ("im_reason", "im_duplicate_of")})
        self.dropped.append(row)
        return row

    def keep(self, row: Row) -> None:
        """Keep a dropped row, and drop the worst kept one in its place as below the cut."""
        self.dropped.remove(row)
        self.dropped.append(self.kept.pop() | {"im_reason": "below the cut", "im_duplicate_of": -1})
        self.kept.append({name: row[name] for name in row if name not in ("im_reason", "im_duplicate_of")})

    def rank(self) -> None:
        """Score, rank and order all rows anew by their columns, as a selection would have them."""
        rule = LinearRule.from_dict(self.record["rule"])
        rows = [*self.kept, *self.dropped]
        losses = rule.predict({name: [_number(row[name]) for row in rows] for name in rule.columns})
        order = np.argsort(losses, kind="stable")
        places = {int(place): rank for rank, place in enumerate(order.tolist(), 1) if math.isfinite(losses[place])}
        for place, row in enumerate(rows):
            row["im_log_loss"], row["im_rank"] = float(losses[place]), places.get(place, 0)
        self.kept.sort(key=lambda row: row["im_rank"])
        self.dropped.sort(key=lambda row: row["im_rank"] or len(rows) + 1)


def forge(folder: Path, change: Change) -> None:
    """Change a publication that lies in a folder, and make all of it consistent again.

    Args:
        folder: What ``push_selected`` published.
        change: What is forged of its tables and its manifest; the rest follows from that.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    datasets = {
        name: concatenate_datasets([Dataset(pq.read_table(folder / path)) for path in config["files"]])
        for name, config in manifest["configs"].items()
    }
    forged = Forged(
        {name: rows.to_list() for name, rows in datasets.items()},
        manifest,
        {name: rows.features for name, rows in datasets.items()},
    )
    change(forged)
    _write_tables(folder, forged)
    _tell_selection(forged)
    _tell_record(forged)
    # A record in its own words: what a class adds to the plain data is forged too.
    manifest["record"]["selection"] = manifest["selection"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    _render(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and render the card anew; nothing else follows."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    _render(folder)


def claim_blocks(folder: Path) -> None:
    """Claim the generated parts of the card as they stand now."""
    from im_datasets.report.card_blocks import find_blocks

    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["card"]["blocks"] = block_digests(find_blocks((folder / CARD).read_text()))
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _write_tables(folder: Path, forged: Forged) -> None:
    for name, rows in forged.tables.items():
        config = forged.manifest["configs"][name]
        (path,) = config["files"]
        columns = list(rows[0])
        table = Dataset.from_dict({column: [row[column] for row in rows] for column in columns})
        known = {column: forged.features[name][column] for column in columns if column in forged.features[name]}
        table = table.cast(type(forged.features[name])({**table.features, **known}))
        table.to_parquet(folder / path)
        config |= {"rows": len(rows), "columns": columns}
        forged.manifest["files"][path] = asdict(Published.of_file(folder / path))


def _tell_selection(forged: Forged) -> None:
    sides = _sides(forged)
    forged.selection["kept"] = len(sides["kept"])
    if "im_log_loss" in sides["kept"][0]:
        forged.selection["cut"] = max(row["im_log_loss"] for row in sides["kept"])
    if "dropped" in sides:
        forged.selection["dropped"] = len(sides["dropped"])
        if "im_reason" in sides["dropped"][0]:
            reasons = Counter(row["im_reason"] for row in sides["dropped"])
            forged.selection["reasons"] = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    top_k = forged.selection["top_k"]
    if top_k is not None:
        forged.selection["shortfall"] = max(0, top_k - len(sides["kept"]))


def _sides(forged: Forged) -> dict[str, list[Row]]:
    if (scores := forged.tables.get("scores")) is not None:
        return {"kept": [r for r in scores if r["im_kept"]], "dropped": [r for r in scores if not r["im_kept"]]}
    return {name: forged.tables[name] for name in ("kept", "dropped") if name in forged.tables}


def _tell_record(forged: Forged) -> None:
    sides = _sides(forged)
    forged.record["rows"] = forged.selection["kept"] + forged.selection["dropped"]
    if "dropped" not in sides or "im_log_loss" not in sides["kept"][0]:
        return
    rows = [*sides["kept"], *sides["dropped"]]
    columns = [column for each in forged.record["indicators"] for column in each["writes"]]
    columns += [*(term["column"] for term in forged.record["rule"]["terms"]), "im_log_loss"]
    values = {
        column: np.array([_number(row[column]) for row in rows])
        for column in dict.fromkeys(columns)
        if column in rows[0]
    }
    figures = {column: describe(array) for column, array in values.items()}
    forged.record["statistics"] = {column: each for column, each in figures.items() if each["count"]}
    reasons = [row["im_unscorable"] for row in rows]
    forged.record["unscorable"] = dict(Counter(reason for reason in reasons if reason))
    pairs = sum(not reason or reason.startswith("no im_") for reason in reasons)
    for each in forged.record["indicators"]:
        counts = [figures[column]["count"] for column in each["writes"] if column in figures]
        each["unscored"] = pairs - min(counts, default=pairs)


def _render(folder: Path) -> None:
    """The card anew, with the digests of its parts and its front matter in the manifest."""
    data = json.loads((folder / MANIFEST).read_text())
    manifest = Manifest.from_json(json.dumps(data))
    published = PublishedSelection(folder.name, folder, manifest, manifest.record)
    if "im_log_loss" not in published.sides["kept"].column_names:
        return  # the card tells scores that are not there
    stated = data["card"]["facts"]
    facts = CardFacts(**{**stated, **{n: as_codes(stated[n]) for n in ("language", "tags", "task_categories")}})
    infos = {}
    for name, config in data["configs"].items():
        rows = Dataset(pq.read_table(folder / config["files"][0]))
        split = SplitInfo("train", num_bytes=rows.data.nbytes, num_examples=len(rows))
        size = sum(data["files"][path]["size"] for path in config["files"])
        infos[name] = DatasetInfo(
            features=rows.features,
            splits=SplitDict({"train": split}),
            download_size=size,
            dataset_size=rows.data.nbytes,
        )
    card = render_card(
        published.selection,
        published.record,
        facts,
        configs=manifest.configs,
        infos=infos,
        digests={path: file.sha256 for path, file in manifest.files.items()},
        original=manifest.columns == "original",
    )
    data["card"] |= {"blocks": block_digests(card.blocks), "metadata": card.metadata}
    (folder / MANIFEST).write_text(json.dumps(data))
    (folder / CARD).write_text(str(card))
