"""What a person reads at the end of a run: counts, reasons, the best and the worst rows, where it all lies."""

import pytest

from im_datasets.cli.printing import print_summary


@pytest.mark.parametrize(("seconds", "told"), [(59.6, "1 min 0 s"), (59.4, "0 min 59 s"), (3599.7, "60 min 0 s")])
def test_print_summary_rounds_before_it_parts_minutes_from_seconds(capsys, seconds, told):
    summary = {"kept": 0, "rows": 0, "cut": None, "rule": {"name": "x"}, "columns": {}, "reasons": {}, "best": []}
    more = {"worst": [], "repeated": False, "seconds": {"a": seconds}, "peak_memory_bytes": 0, "folder": "x"}
    print_summary({**summary, **more, "shortfall": 0})
    assert f"Took {told}," in capsys.readouterr().out
