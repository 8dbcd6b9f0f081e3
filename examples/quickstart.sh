#!/usr/bin/env bash
# Sets up a virtual environment and mines the example dataset: bash examples/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash .ci/setup
"${IM_VENV:-.venv}/bin/im-datasets" mine examples/data/instructions.jsonl --rule embedded --top-k 50 --out mined
