#!/usr/bin/env bash
# Makes a fresh clone ready to build, check and test. Safe to repeat: a second run changes nothing.
#
#   1. Debian packages (compilers, BPF and network tools), as root on Debian; else says what is missing and goes
#      on: Python packages alone are enough for `make demo` in memory and for the tests that need no privilege.
#   2. .venv with the exact versions of requirements/dev.txt and this tree, editable.
#
# PYTHON=python3.12 tools/setup.sh uses another interpreter for a new .venv. Without it the system's own is
# taken if it is new enough: distributions build with profile-guided optimization, version managers as a rule
# without, and then everything here takes half as long again.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without these there is no build and no check.
NEEDED=(
  # BPF programs and the CNI shim
  clang llvm libbpf-dev linux-libc-dev gcc libc6-dev clang-format
)
# Without these a part of the tests and the lab are left out.
WANTED=(
  # loading and looking at BPF programs
  libbpf1 bpftool
  # masquerading; the command nft is for tests
  libnftables1 nftables
  # the lab
  iproute2 iputils-ping iperf3
  # etcd 3.4: the lab's server, and for the contract suite, which must pass on an old one, too
  etcd-server
  # portmap and bandwidth, for the tests of CNI chains
  containernetworking-plugins
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

# Prints those of the named Debian packages that are not installed.
not_installed() {
  LC_ALL=C comm -23 \
    <(printf '%s\n' "$@" | LC_ALL=C sort) \
    <(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
      sed -n 's/ installed$//p' | LC_ALL=C sort -u)
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    step "not a Debian system: have these ready, by your system's names: ${NEEDED[*]} ${WANTED[*]}"
    return
  fi
  # A small Debian has no Python, a larger one has it without the means to make a virtual environment.
  if [[ "$PYTHON" =~ ^(/usr/bin/)?python3$ ]] && ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    NEEDED+=(python3 python3-venv)
  fi

  local needed wanted missing by_hand
  mapfile -t needed < <(not_installed "${NEEDED[@]}")
  mapfile -t wanted < <(not_installed "${WANTED[@]}")
  missing=("${needed[@]}" "${wanted[@]}")
  if [ ${#missing[@]} -eq 0 ]; then
    return
  fi
  by_hand="apt-get update && apt-get install --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    step "left out, because only root can install Debian packages: ${missing[*]}"
    [ ${#needed[@]} -eq 0 ] ||
      step "make build needs ${needed[*]}: $by_hand; make demo does without, in memory"
    return
  fi
  step "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet=2 || fail "apt-get update failed; still missing: ${missing[*]}"
  without_daemons apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" |
    awk -v asked=" ${missing[*]} " '/^Setting up/ { sub(/:.*/, "", $3); if (index(asked, " " $3 " ")) print "setup:   " $3 }' ||
    fail "apt-get could not install what is missing; when its sources answer again: $by_hand"
}

require_python() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$PYTHON is missing or older than 3.11; name another one with PYTHON=…"
}

make_venv() {
  if ! .venv/bin/python -c '' 2>/dev/null; then
    step "making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear .venv || fail "$PYTHON cannot make a virtual environment (Debian: python3-venv)"
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
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv" ||
      fail "pip could not install $uv: is a Python package index reachable? (PIP_INDEX_URL names another)"
  fi
  step "installing $(wc -l <requirements/dev.txt) Python packages"
  .venv/bin/uv pip install --quiet --python .venv/bin/python -r requirements/dev.txt ||
    fail "uv could not install requirements/dev.txt: is a Python package index reachable? (UV_DEFAULT_INDEX names another)"
  step "installing this tree, editable"
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
  printf '%s\n' "$fresh" >"$stamp"
}

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  can=ensurepip
  [ "$(id -u)" -ne 0 ] || can=sys # what is missing will be installed
  ! /usr/bin/python3 -c "import sys, $can; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || PYTHON=/usr/bin/python3
fi
# uv brings its own list of authorities; pip and everything else here use the system's.
export UV_SYSTEM_CERTS=1

# What `sudo make demo` made cannot be changed by the one who says `make test` afterwards.
foreign=$(find . -maxdepth 2 -path ./.git -prune -o ! -type l ! -writable -print -quit)
[ -z "$foreign" ] ||
  fail "$foreign belongs to $(stat --format=%U "$foreign"); make it yours: sudo chown -R $(id -un) '$PWD'"

# Two make targets at a time must not install into each other's feet.
mkdir -p build
exec 9>build/setup.lock
flock 9

# A python3 that is not there yet may come with the packages.
[ "$PYTHON" = python3 ] && ! command -v python3 >/dev/null || require_python
install_packages
require_python
make_venv
step "ready"
