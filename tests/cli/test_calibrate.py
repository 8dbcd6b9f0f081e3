"""The commands that finetune: what they refuse at once, and the whole way at toy size."""

import json
import re
from pathlib import Path

import pytest
from command_line import invoke

from im_datasets.calibration.experiments import experiment
from im_datasets.calibration.runs import read_runs
from im_datasets.common.errors import CalibrationError

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
DATA = [f"good={EXAMPLES / 'instructions.jsonl'}", f"chat={EXAMPLES / 'chat.jsonl'}"]
FAST = ["--epochs", "1", "--learning-rate", "1e-3", "--max-tokens", "48", "--template", "plain", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate"], "nothing to fit on, or two things"),
        (["calibrate", "a.jsonl", "--runs", "runs.jsonl"], "nothing to fit on, or two things"),
        (["calibrate", "a.jsonl"], "finetuning needs candidate DATA and --base-model MODEL"),
        (["compare", "a.jsonl", "--base-model", "m"], "no evaluation set; pass --evaluation DATA"),
        (["compare", "a.jsonl", "--base-model", "m", "--epochs", "0"], "epochs=0.0; must be above 0"),
        (["search-size", "a.jsonl", "--objective", "json:nothing"], "no objective 'json:nothing'"),
        (["search-size", "a.jsonl", "--trials", "0"], "trials=0"),
    ],
)
def test_commands_refuse_at_once(arguments, message, tmp_path):
    with pytest.raises(CalibrationError, match=re.escape(message)):
        invoke(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_interrupted_command_says_that_it_goes_on(tmp_path, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("im_datasets.calibration.experiments.evaluation.load_evaluations", interrupted)
    done = invoke("compare", "a.jsonl", "--base-model", "m", "--evaluation", "e.jsonl", "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert "finished runs are kept, and the same command goes on" in done.output


@pytest.mark.slow
def test_calibrate_search_size_and_compare_at_toy_size(base_model, tmp_path, monkeypatch):
    out, common = tmp_path / "out", ["--base-model", base_model, *FAST]
    common += ["--evaluation", f"held={EXAMPLES / 'evaluation.jsonl'}", "--evaluation-limit", "4", "--limit", "40"]
    made = invoke("calibrate", *DATA, *common, "--subsets", 12, "--rows", 8, "--resamples", 100, "--out", out)
    assert made.exit_code == 0, made.output
    rule = out / "rule.json"
    assert json.loads(rule.read_text())["name"] == "fitted"
    assert len(read_runs(out / "runs.jsonl").of_kind("calibration")) == 12
    sizes = ["--low", 4, "--high", 20, "--trials", 2, "--points", 2]
    searched = invoke("search-size", DATA[0], *common, "--rule", rule, *sizes, "--out", out)
    assert searched.exit_code == 0, searched.output
    assert "<- lowest" in searched.output
    arms = ["--size", 8, "--seeds", 1, "--baseline", "random", "--baseline", "length"]
    compare = ["compare", DATA[0], *common, "--rule", rule, *arms, "--out", out]
    compared = invoke(*compare)
    assert compared.exit_code == 0, compared.output
    assert "| held | 8 | random |" in compared.output
    assert {path.name for path in out.iterdir()} >= {"report.html", "size_search.json", "comparison.md"}
    monkeypatch.setattr(experiment, "finetune", lambda *args, **settings: pytest.fail("trained again"))
    saved = (out / "comparison.json").read_bytes()
    assert invoke(*compare).exit_code == 0
    assert (out / "comparison.json").read_bytes() == saved
