#!/usr/bin/env bash
# Runs the experiments and writes out/report.html:
#   ./reproduce.sh [package ...] [--full] [--out DIR]    ./reproduce.sh --setup
set -euo pipefail
export REPRODUCE_CALLED_FROM="$PWD"  # where a relative DIR is
cd "$(dirname "$0")"
source scripts/environment.sh
make_environment

if [ "${1:-}" = "--setup" ]; then exit 0; fi
exec "$python" -m expkit.reproduce "$@"
