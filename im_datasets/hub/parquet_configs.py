"""Selection → the Parquet shards of its configs, written into a folder, without the network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetInfo, Features, SplitDict, SplitInfo, Value, concatenate_datasets

from im_datasets.common.errors import HubError
from im_datasets.data.arrow import laid_out, read_column, undecoded, write_parquet
from im_datasets.data.columns import SOURCE_ROW, TURN
from im_datasets.hub.media import MediaFiles, check_media, with_media
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.report.configs import Config, Published
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.selection.added_columns import IS_KEPT
from im_datasets.selection.select import DUPLICATE_OF, RANK, REASON, ROW, TARGET, Selection

DROP_FEATURES = Features({REASON: Value("string"), DUPLICATE_OF: Value("int64")})
"""Columns that only dropped rows have."""

SHARD_BYTES = 500 * 10**6
"""Rough size of a shard at most, in bytes of Arrow."""

SPLIT = "train"
_COLUMN_CHOICES = ("all", "original")


@dataclass(frozen=True)
class DataFiles:
    """The data files of a publication.

    Attributes:
        folder: Where they lie.
        configs: Config name → rows, columns and files; the first is the default.
        files: Path in the folder → sha256 and size.
        infos: Config name → what the front matter says of it.
        dropped_media: Images, sounds and the like that were left out, as files that nobody handed over.
    """

    folder: Path
    configs: dict[str, Config]
    files: dict[str, Published]
    infos: dict[str, DatasetInfo]
    dropped_media: int = 0


def write_data_files(
    selection: Selection,
    folder: Path,
    *,
    columns: str = "all",
    include_dropped: bool = False,
    include_scores: bool = False,
    scores_only: bool = False,
    media_from: str | Path | None = None,
    drop_media: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> DataFiles:
    """Write the configs of a selection: ``kept``, and if asked ``dropped`` and ``scores``.

    Args:
        selection: What was kept and dropped.
        folder: Where to write.
        columns: As for ``push_selected``, like the three that follow.
        include_dropped: Whether there is a config ``dropped``.
        include_scores: Whether there is a config ``scores``.
        scores_only: Whether there is no other.
        media_from: Whose files may be read where a row names one; None is what the selection knows to be handed over.
        drop_media: Whether others are left out.
        shard_bytes: Rough size of a shard at most.

    Raises:
        HubError: ``columns`` is neither of the two, nothing would be written, two rows have one number, or a row
            names a file that nobody handed over.
    """
    if columns not in _COLUMN_CHOICES:
        raise HubError(f"columns={columns!r}; it must be one of {', '.join(_COLUMN_CHOICES)}")
    if scores_only and include_dropped:
        raise HubError("scores_only leaves all texts out, include_dropped asks for some; pass one of them")
    if not len(selection.kept):
        raise HubError("the selection keeps no row, so there is nothing to publish")
    _check_numbers(selection)
    added = [] if columns == "all" else [*added_columns(selection), REASON, DUPLICATE_OF]
    if not set(selection.kept.column_names) - set(added):
        raise HubError("no column of the source is left beside those of im-datasets; pass columns='all'")
    configs: dict[str, Dataset] = {}
    if not scores_only:
        configs["kept"] = _without(selection.kept, added)
    # `datasets` cannot open a config without rows.
    if include_dropped and len(selection.dropped):
        configs["dropped"] = _without(selection.dropped, added)
    if include_scores or scores_only:
        configs["scores"] = scores_table(selection)
    media = MediaFiles.of(selection.media_from if media_from is None else media_from)
    data = DataFiles(folder, {}, {}, {}, check_media(configs, media, drop=drop_media))
    for name, rows in configs.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        with with_media(rows.with_format(None), media, folder) as whole:
            _write_config(data, name, whole, shard_bytes)
    return data


def _check_numbers(selection: Selection) -> None:
    """Refuse rows that nobody could tell apart."""
    sides = [read_column(rows, ROW).to_numpy() for rows in (selection.kept, selection.dropped) if len(rows)]
    numbers, counts = np.unique(np.concatenate(sides), return_counts=True)
    if (counts > 1).any():
        raise HubError(
            f"two rows have the {ROW} {numbers[counts > 1][0]}, as where selections were put together; remove the "
            "column, select again, which numbers the rows anew, then push"
        )


def added_columns(selection: Selection) -> list[str]:
    """The columns that scoring and selection added, of those that are there."""
    record = selection.record
    written = {name for indicator in record.indicators for name in indicator.writes} if record else set()
    rows = selection.kept
    added = {*COLUMNS, *written, LOG_LOSS, UNSCORABLE, ROW, RANK, TARGET, REASON, DUPLICATE_OF}
    # COLUMNS knows im_knn_<k> of any k, a set of its names only those that it lists.
    return [name for name in rows.column_names if name in added or name in COLUMNS]


def scores_table(selection: Selection) -> Dataset:
    """Row numbers, ranks and scores of all rows of a selection, kept ones first, and no text of the source."""
    numbers = [name for name in (SOURCE_ROW, TURN) if name in selection.kept.column_names]
    names = added_columns(selection) + numbers
    sides = [selection.kept.select_columns(names)]
    if len(selection.dropped):
        sides.append(selection.dropped.select_columns([*names, REASON, DUPLICATE_OF]))
    sizes = [len(side) for side in sides]
    if len(sides) == 2:
        nothing = {REASON: [""] * sizes[0], DUPLICATE_OF: [-1] * sizes[0]}
        sides[0] = concatenate_datasets([sides[0], Dataset.from_dict(nothing, features=DROP_FEATURES)], axis=1)
    rows = concatenate_datasets(sides)
    is_kept = Dataset.from_dict({IS_KEPT: [row < sizes[0] for row in range(len(rows))]})
    return concatenate_datasets([rows.select_columns([ROW, RANK]), is_kept, _without(rows, [ROW, RANK])], axis=1)


def _without(rows: Dataset, names: list[str]) -> Dataset:
    return rows.remove_columns([name for name in names if name in rows.column_names])


def _write_config(data: DataFiles, name: str, rows: Dataset, shard_bytes: int) -> None:
    shards = max(1, min(len(rows), -(-int(undecoded(rows)._estimate_nbytes()) // shard_bytes)))
    paths, size = [], 0
    with laid_out(rows, data.folder) as contiguous:
        for shard in range(shards):
            path = f"{name}/{SPLIT}-{shard:05d}-of-{shards:05d}.parquet"
            size += write_parquet(contiguous.shard(shards, shard, contiguous=True), data.folder / path)
            data.files[path] = Published.of_file(data.folder / path)
            paths.append(path)
    data.configs[name] = Config(len(rows), list(rows.column_names), paths)
    split = SplitInfo(SPLIT, num_bytes=size, num_examples=len(rows))
    data.infos[name] = DatasetInfo(
        features=rows.features,
        splits=SplitDict({SPLIT: split}),
        download_size=sum(data.files[path].size for path in paths),
        dataset_size=size,
    )
