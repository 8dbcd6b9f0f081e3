"""Files, configs and columns of a publication against those that push writes; what no check looks into is named."""

from collections.abc import Iterator

from datasets import Value

from im_datasets.common.version import __version__
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.report.card import CONFIGS, FIGURE, PANELS
from im_datasets.report.result_folder import REPORT
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.added_columns import IS_KEPT
from im_datasets.selection.select import DUPLICATE_OF, RANK, REASON, ROW, TARGET

_SHOWN = (FIGURE, PANELS, REPORT)
"""Files for people."""

_NUMBERS, _TEXTS = ("int", "uint", "float", "double"), ("string", "large_string")
_KINDS = {
    **dict.fromkeys((ROW, RANK, DUPLICATE_OF, TARGET), ("int64",)),
    **dict.fromkeys((UNSCORABLE, REASON), _TEXTS),
    LOG_LOSS: ("float",),
    IS_KEPT: ("bool",),
}
"""Column → how the name of its type begins."""


def check_layout(published: PublishedSelection) -> Iterator[Check]:
    """Whether configs and columns are such as push writes, and which files hold more than rows."""
    manifest = published.manifest
    wrong = _wrong_types(published)
    if manifest is not None:
        names = list(manifest.configs)
        written = [name for name in CONFIGS if name in names]
        if names != written or (names[0] != "kept" and len(names) > 1):
            wrong.append(
                f"its configs are {few(names)}; push writes {few(list(CONFIGS))}, in this order, and no rows without "
                "the kept ones before them"
            )
        if manifest.package_version == __version__:
            # Another version may write others.
            others = [path for path in _beside(manifest) if path not in _SHOWN]
            wrong += [f"{path} is neither rows nor a figure, and no file that push writes" for path in others]
    yield verdict("layout", wrong, f"columns of {len(published.tables)} tables are of the types that are written")
    if manifest is None:
        return
    if beside := _beside(manifest):
        finding = f"{few(beside)}: what they show or hold, beside their sha256"
        yield Check("files", Outcome.NOT_CHECKED, finding)


def _beside(manifest: Manifest) -> list[str]:
    """Files that hold no rows."""
    rows = {path for config in manifest.configs.values() for path in config.files}
    return [path for path in manifest.files if path not in rows]


def _wrong_types(published: PublishedSelection) -> list[str]:
    """Columns of this package of a type that it does not write, so that others read or sort them otherwise."""
    kinds = {**dict.fromkeys(_written(published.record), _NUMBERS), **_KINDS}
    wrong = []
    for name, rows in published.tables.items():
        for column, kind in kinds.items():
            if column not in rows.column_names:
                continue
            feature = rows.features[column]
            if not isinstance(feature, Value) or not feature.dtype.startswith(kind):
                wrong.append(f"{column} of {name} is of the type {feature}")
            elif column in (ROW, RANK) and rows.data.column(column).null_count:
                wrong.append(f"{column} of {name} lacks numbers")
    return wrong


def _written(record: ScoringRecord | None) -> list[str]:
    if record is None:
        return []
    return [*record.rule.columns, *(column for indicator in record.indicators for column in indicator.writes)]
