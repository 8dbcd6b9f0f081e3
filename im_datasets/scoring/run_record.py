"""What a run came to → its ScoringRecord: figures of all shards summed, columns described, versions told."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from im_datasets.common.storage import peak_memory_bytes
from im_datasets.common.version import __version__
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import describe_model, embedder_of
from im_datasets.models.meter import Meter
from im_datasets.scoring.assembly import Assembly
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.scoring.scorer import ShardScorer, library_versions
from im_datasets.scoring.shards import ShardMeter
from im_datasets.scoring.statistics import describe


def make_record(
    assembly: Assembly, scorer: ShardScorer, scores: Dataset, source: dict[str, Any], rates: Mapping[str, float]
) -> ScoringRecord:
    """The record of a run.

    Args:
        assembly: Of its shards, with all that was solved.
        scorer: Of its shards.
        scores: The narrow columns of all rows.
        source: Where the rows come from.
        rates: What the last attempt came to, for the record's ``throughput``.
    """
    meters = [assembly.shards.meter(shard) for shard in range(len(assembly.shards))]
    parts = _summed(meters)
    for column in assembly.neighbours:
        parts[column].seconds += assembly.seconds[column]
    seconds = defaultdict(float, read=parts["read"].seconds)
    seconds["embedding"] = sum(part.seconds for name, part in parts.items() if name.startswith("embedding:"))
    for indicator in assembly.mining.indicators:
        seconds[type(indicator).__name__] += parts[indicator.writes[0]].seconds
    seconds["rule"] = assembly.seconds["rule"]
    figures = {n: describe(scores.data.column(n).to_numpy()) for n in scores.column_names if n != UNSCORABLE}
    reasons = pc.value_counts(scores.data.column(UNSCORABLE)).to_pylist()
    return ScoringRecord(
        package_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        columns=scorer.columns,
        rule=assembly.mining.rule,
        indicators=_indicator_records(assembly, scorer, parts, figures, sum(seconds.values())),
        rows=assembly.shards.rows,
        unscorable=dict(Counter({row["values"]: row["counts"] for row in reasons if row["values"]}).most_common()),
        statistics={name: column for name, column in figures.items() if column["count"]},
        versions=library_versions() | _engine_versions(meters),
        engines=dict(Counter(meter.engine for meter in meters)),
        seconds={part: round(spent, 3) for part, spent in seconds.items()},
        peak_memory_bytes=peak_memory_bytes(),
        throughput={**rates, "workers": max(meter.workers for meter in meters), "shards": len(meters)},
    )


def _indicator_records(
    assembly: Assembly,
    scorer: ShardScorer,
    parts: Mapping[str, Meter],
    figures: Mapping[str, dict[str, float]],
    seconds: float,
) -> list[IndicatorRecord]:
    """Each indicator's part in a run, from what each part of the work came to and the figures of each column."""
    records = []
    for indicator in assembly.mining.indicators:
        name, embedder = indicator.writes[0], embedder_of(indicator)
        part = parts[name]
        # Texts are cut where they are encoded, once for all indicators that share the encoder.
        encoding = parts[f"embedding:{scorer.embedders.index(embedder)}"] if embedder else part
        search = assembly.neighbours[name].facts if name in assembly.neighbours else None
        records.append(
            IndicatorRecord(
                name=type(indicator).__name__,
                version=indicator.version,
                writes=list(indicator.writes),
                settings=indicator.settings(),
                model=describe_model(indicator),
                unscored=assembly.scorable - int(min(figures[column]["count"] for column in indicator.writes)),
                truncated=encoding.truncated,
                reused=part.reused,
                tokens=part.tokens,
                seconds=round(part.seconds, 3),
                share=round(part.seconds / seconds, 4) if seconds else 0.0,
                search=search or None,
            )
        )
    return records


def _summed(meters: Sequence[ShardMeter]) -> defaultdict[str, Meter]:
    """The figures of all shards; seconds of workers that ran side by side count by their number."""
    total: defaultdict[str, Meter] = defaultdict(Meter)
    for meter in meters:
        for name, part in meter.parts.items():
            part.seconds /= meter.workers
            total[name].add(part)
    return total


def _engine_versions(meters: Sequence[ShardMeter]) -> dict[str, str]:
    """Engine → its version, from the shards: whoever ends a run need not have what others began it with."""
    versions: dict[str, set[str]] = defaultdict(set)
    for meter in meters:
        if meter.version is not None:
            versions[meter.engine].add(meter.version)
    return {engine: ", ".join(sorted(several)) for engine, several in versions.items()}
