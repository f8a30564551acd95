#!/usr/bin/env bash
# Runs lint, types and tests: ./test.sh [pytest arguments], e.g. ./test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
make_environment

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pyrefly check --python-interpreter-path "$python"

# Many tests start a process. It imports an experiment in 3 s, without bytecode in 8, and
# uv installs none. So Python writes it, whatever its settings, and not beside the sources.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX="$PWD/.venv/bytecode"

run() {
  "$python" -m pytest -n "$(getconf _NPROCESSORS_ONLN)" --maxprocesses=8 \
    --dist=worksteal "$@"
}
if (($#)); then
  run "$@"
  exit
fi
# Most of the time goes into compilation. Where every core has a worker, none has to cut
# its programs into parts for the others. What a program computes does not depend on how
# well it is compiled, but for its last digits, its memory and its operations. What one
# test has compiled, others load.
status=0
export XLA_FLAGS="${XLA_FLAGS:-} --xla_cpu_parallel_codegen_split_count=1"
quick="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
cache="$(mktemp -d)"
trap 'rm -rf "$cache"' EXIT
XLA_FLAGS="$XLA_FLAGS $quick" JAX_COMPILATION_CACHE_DIR="$cache" \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
  run -m "not slow and not optimized" || status=$?
# Importing the other files would take as long as many tests.
optimized=$(grep -rl --include="test_*.py" "pytest\.mark\.optimized" tests)
# shellcheck disable=SC2086
run -m "not slow and optimized" $optimized || status=$?
exit "$status"
