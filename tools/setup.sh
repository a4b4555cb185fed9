#!/usr/bin/env bash
# Makes a fresh clone ready to build, check and test. Safe to repeat: a second run changes nothing.
#
#   1. Debian packages (compilers, BPF and network tools), as root on Debian; else says what is missing.
#   2. .venv with the exact versions of requirements/dev.txt and this tree, editable.
#
# PYTHON=python3.12 tools/setup.sh uses another interpreter for a new .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
  # BPF programs and the CNI shim
  clang llvm libbpf-dev linux-libc-dev gcc libc6-dev clang-format
  # loading and looking at BPF programs
  libbpf1 bpftool
  # the lab
  iproute2 iputils-ping iperf3
  # etcd 3.4, for the contract suite only: a store that must pass on an old server too
  etcd-server
)

step() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Installing etcd-server and iperf3 would start daemons; the tests start their own.
without_daemons() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  local status=0
  "$@" || status=$?
  rm -f "$policy"
  return "$status"
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    step "not a Debian system: have these ready, by your system's names: ${PACKAGES[*]}"
    return
  fi
  local wanted=("${PACKAGES[@]}")
  # Debian ships Python without the means to make a virtual environment.
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)

  local missing
  mapfile -t missing < <(comm -23 \
    <(printf '%s\n' "${wanted[@]}" | LC_ALL=C sort) \
    <(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null |
      sed -n 's/ installed$//p' | LC_ALL=C sort -u))
  if [ ${#missing[@]} -eq 0 ]; then
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    step "missing, and only root can install it: apt-get install ${missing[*]}"
    return
  fi
  step "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet=2
  without_daemons apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" |
    sed -n 's/^Setting up/setup:   &/p'
}

make_venv() {
  if ! .venv/bin/python -c '' 2>/dev/null; then
    step "making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear .venv
  fi
  local stamp fresh
  stamp=.venv/deltaplane-setup.sha256
  fresh=$(sha256sum requirements/dev.txt pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$fresh" ]; then
    return
  fi
  local uv
  uv=$(grep '^uv==' requirements/dev.txt)
  if [ "$(.venv/bin/uv --version 2>/dev/null | awk '{print $1 "==" $2}')" != "$uv" ]; then
    step "installing $uv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
  fi
  step "installing $(wc -l <requirements/dev.txt) Python packages"
  .venv/bin/uv pip install --quiet --python .venv/bin/python -r requirements/dev.txt
  step "installing this tree, editable"
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
  printf '%s\n' "$fresh" >"$stamp"
}

PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "$PYTHON is missing or older than 3.11; name another one with PYTHON=…"

# Two make targets at a time must not install into each other's feet.
mkdir -p build
exec 9>build/setup.lock
flock 9

install_packages
make_venv
step "ready"
