#!/usr/bin/env bash
# Fuzzes with atheris, which is guided by coverage, where it can be installed; else by chance. Arguments: as python -m tests.fuzz.
# It is put beside the environment and not into it: nothing else needs its 60 MB.
set -euo pipefail
cd "$(dirname "$0")/.."

ATHERIS=atheris==3.0.0
export UV_SYSTEM_CERTS=1 # as in setup.sh

if [ ! -d build/atheris ]; then
  if ! .venv/bin/uv pip install --quiet --python .venv/bin/python --target build/atheris.new "$ATHERIS"; then
    echo "fuzz: $ATHERIS cannot be installed; inputs are changed by chance and not by coverage" >&2
  else
    mv build/atheris.new build/atheris
  fi
fi
PYTHONPATH=build/atheris exec .venv/bin/python -m tests.fuzz "$@"
