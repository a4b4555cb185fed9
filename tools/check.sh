#!/usr/bin/env bash
# All static checks. A step runs even if an earlier one failed; the summary at the end names them all.
# Exits 1 if any failed. To run some: tools/check.sh ruff mypy (any part of a step's name).
set -uo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
ONLY=("$@")
summary=()
failed=0

# A step prints why it has nothing to do and returns this.
NOTHING=77

run_step() {
  local name=$1 function=$2 status=0 started=$SECONDS
  if [ ${#ONLY[@]} -gt 0 ]; then
    local part wanted=
    for part in "${ONLY[@]}"; do [[ $name != *$part* ]] || wanted=1; done
    [ -n "$wanted" ] || return 0
  fi
  printf '== %s\n' "$name"
  "$function" || status=$?
  case $status in
  0) summary+=("ok      $name ($((SECONDS - started)) s)") ;;
  "$NOTHING") summary+=("nothing $name") ;;
  *)
    summary+=("FAILED  $name")
    failed=$((failed + 1))
    ;;
  esac
}

nothing() {
  printf 'nothing to check: %s\n' "$*"
  return "$NOTHING"
}

ruff_format() { $BIN/ruff format --check --quiet . || { echo "run make format" && false; }; }
ruff_check() { $BIN/ruff check --quiet --output-format concise .; }

mypy_strict() {
  local package packages=()
  for package in deltaplane services nodeagent lab bench deploy tests tools; do
    [ -z "$(find "$package" -name '*.py' -print -quit 2>/dev/null)" ] || packages+=("$package")
  done
  $BIN/mypy "${packages[@]}"
}

import_contracts() { $BIN/python tools/import_contracts.py; }

buf_lint() {
  [ -n "$(find proto -name '*.proto' -print -quit 2>/dev/null)" ] || nothing "no proto file" || return
  $BIN/buf lint
}

# Messages on the wire and in etcd: what the last release, or else the last commit, wrote must still be read.
buf_breaking() {
  local base
  git rev-parse --quiet --verify HEAD >/dev/null || nothing "no commit to compare with" || return
  base=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || echo HEAD)
  $BIN/buf breaking --against ".git#ref=$base"
}

# Fills the array c_files with our C sources; abi.h and its kind included.
find_c() { mapfile -t c_files < <(find bpf nodeagent/cni/shim bench -name build -prune -o -name '*.[ch]' -print 2>/dev/null | LC_ALL=C sort); }

clang_format() {
  find_c
  [ ${#c_files[@]} -gt 0 ] || nothing "no C file" || return
  clang-format --dry-run -Werror "${c_files[@]}"
}

c_warnings() {
  find_c
  [ ${#c_files[@]} -gt 0 ] || nothing "no C file" || return
  make --no-print-directory warnings
}

dockerfile() { $BIN/hadolint deploy/images/Dockerfile; }

generated_drift() { tools/generate.sh --check; }

# Installed versions against pyproject.toml's ranges, ours included: a dependency added without `make lock`.
requirements() { $BIN/uv pip check --quiet --python $BIN/python; }

shell_syntax() {
  local script status=0
  for script in tools/*.sh .ci/run; do bash -n "$script" || status=1; done
  return $status
}

run_step "ruff format" ruff_format
run_step "ruff check" ruff_check
run_step "mypy --strict" mypy_strict
run_step "import contracts" import_contracts
run_step "buf lint" buf_lint
run_step "buf breaking" buf_breaking
run_step "clang-format" clang_format
run_step "C warnings" c_warnings
run_step "Dockerfile" dockerfile
run_step "generated code" generated_drift
run_step "requirements" requirements
run_step "shell syntax" shell_syntax

printf '\ncheck:\n'
printf '  %s\n' "${summary[@]}"
[ "$failed" -eq 0 ] || { printf 'check: %d of %d steps failed\n' "$failed" "${#summary[@]}" && exit 1; }
