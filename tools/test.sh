#!/usr/bin/env bash
# The tests: three at a time, for on two CPUs a third of the time of two is waiting; then the serial ones.
# tests/together.py says which ones go to the same worker.
# SEED=… repeats what Hypothesis drew. Arguments go to both pytest runs: tools/test.sh tests/unit -k slicing
set -uo pipefail
cd "$(dirname "$0")/.."

NO_TESTS=5 # pytest's exit code
# Tests start hundreds of processes of our own. Where nothing keeps what Python compiles, each of them spends more than
# a second of CPU on compiling what it imports; and some environments forbid to keep it beside the sources.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$PWD/build/pycache
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}

run_pytest() {
  local status=0
  .venv/bin/python -m pytest --hypothesis-seed="$SEED" "$@" </dev/null 2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || [ "$status" -eq "$NO_TESTS" ] || failed=1
}

# Sums one outcome over the closing lines of both runs.
count() { grep -E '^(=+ )?[0-9]+ [a-z]+.* in [0-9.]+s' "$log" | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'; }

tools/preflight.sh

run_pytest -n 3 --dist loadscope -m "not serial" --durations 10 "$@"
run_pytest -m serial --durations 5 "$@"

echo "pytest: $(count passed) passed, $(($(count failed) + $(count 'errors?'))) failed, $(count skipped) skipped"
exit "$failed"
