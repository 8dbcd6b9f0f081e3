"""Two rules on pairs of answers of which people or strong models held one for the better.

    python examples/calibration/judge.py --data DIR --rule experiment/fitted-self-instruct/rule.json --out judged.json

The sets are those that the quality head is reported on (``examples/quality/preferences.py``); no rule was fitted on
them. What compares a row with others compares the answers of one set.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets import LinearRule
from im_datasets.scoring.score import score

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))

from evaluate import compare
from preferences import Preference, load_preferences


def judge(pairs: Sequence[Preference], rules: Sequence[LinearRule]) -> dict[str, Any]:
    """How often each rule predicts a lower loss for the better answer, and how often that is the longer one.

    Args:
        pairs: Better and worse answers.
        rules: What is judged; a pair that one of them cannot score is left out for all.
    """
    rows = Dataset.from_dict(
        {
            "instruction": [pair.instruction for pair in pairs for _ in range(2)],
            "response": [text for pair in pairs for text in (pair.better, pair.worse)],
        }
    )
    predicted = [_predicted(rows, rule) for rule in rules]
    is_scored = np.isfinite(predicted).all(axis=(0, 2))
    longer = np.array([len(pair.better) - len(pair.worse) for pair in pairs], dtype=np.float64)[is_scored]
    return {
        rule.name: compare(-losses[is_scored, 0], -losses[is_scored, 1], longer)
        for rule, losses in zip(rules, predicted, strict=True)
    }


def _predicted(rows: Dataset, rule: LinearRule) -> NDArray[np.float64]:
    """Predicted log loss of the better and the worse answer of each pair, shape (n, 2)."""
    scored = score(rows, rule, describe=False, progress=False).dataset
    return np.asarray(scored["im_log_loss"][:], dtype=np.float64).reshape(-1, 2)


def main() -> None:
    """Judge a rule beside the embedded one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public datasets (see README.md)")
    parser.add_argument("--rule", nargs="+", required=True, help="names or JSON files of rules")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    rules = [LinearRule.load("embedded"), *(LinearRule.load(name) for name in options.rule)]
    shares = {name: judge(pairs, rules) for name, pairs in load_preferences(options.data).items()}
    options.out.write_text(json.dumps(shares, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(shares, indent=2))


if __name__ == "__main__":
    main()
