#!/usr/bin/env bash
# Runs lint, types and tests: ./test.sh [pytest arguments], e.g. ./test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
make_environment

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pyrefly check --python-interpreter-path "$python"
exec "$python" -m pytest "$@"
