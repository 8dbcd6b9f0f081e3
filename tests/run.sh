#!/usr/bin/env bash
# Sets up a virtual environment and runs every check: bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash .ci/setup test,spaces
"${IM_VENV:-.venv}/bin/python" -m pytest "$@"
