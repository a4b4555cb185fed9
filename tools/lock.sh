#!/usr/bin/env bash
# Resolves the ranges of pyproject.toml into requirements/: exact versions, transitive, nothing else in the files.
# dev.txt is everything; runtime.txt is the part of it that an image installs.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_SYSTEM_CERTS=1 # as in setup.sh

compile() {
  .venv/bin/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --python .venv/bin/python --python-version 3.11 --extra otlp "$@" pyproject.toml
}

compile --upgrade --group dev --output-file requirements/dev.txt
# An image must run the versions that were tested, so the second list is cut out of the first.
compile --constraints requirements/dev.txt --output-file requirements/runtime.txt
wc -l requirements/*.txt
