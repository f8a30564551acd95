#!/usr/bin/env bash
# Runs lint, types and tests: ./test.sh [pytest arguments], e.g. ./test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
make_environment

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pyrefly check --python-interpreter-path "$python"
# Most of the time goes into compilation, which uses one core at a time.
exec "$python" -m pytest -n "$(getconf _NPROCESSORS_ONLN)" --maxprocesses=8 \
  --dist=worksteal "$@"
