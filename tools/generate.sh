#!/usr/bin/env bash
# Generates every committed file that has a source elsewhere in the tree:
#
#   proto/**/*.proto       → deltaplane/**/*_pb2.py, *_pb2.pyi, *_pb2_grpc.py, *_pb2_grpc.pyi, __init__.py
#   bpf/include/abi.h      → nodeagent/dataplane/abi.py   (by tools/generate_abi.py, once it exists)
#   deploy/kubernetes/chart → deploy/kubernetes/base       (by tools/generate_manifests.py)
#
# Usage: tools/generate.sh          write into the tree, remove what no longer has a source
#        tools/generate.sh --check  change nothing, exit 1 if the tree differs (drift)
#
# Both modes generate into an empty directory first, so that they cannot disagree.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-write}
case $mode in
write | --check) ;;
*)
  echo "usage: tools/generate.sh [--check]" >&2
  exit 2
  ;;
esac

root=$PWD
python=$root/.venv/bin/python
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

generate_protos() {
  [ -d proto ] || return 0
  local protos
  mapfile -t protos < <(cd proto && find . -name '*.proto' -printf '%P\n' | LC_ALL=C sort)
  [ ${#protos[@]} -gt 0 ] || return 0

  # protoc looks for its protoc-gen-mypy* plugins on PATH.
  PATH="$root/.venv/bin:$PATH" "$python" -m grpc_tools.protoc -I proto \
    --python_out="$fresh" --grpc_python_out="$fresh" \
    --mypy_out=quiet:"$fresh" --mypy_grpc_out=quiet:"$fresh" \
    "${protos[@]}"

  # protoc's grpc plugin writes an empty shell for a file without a service: nothing imports it.
  local proto stem
  for proto in "${protos[@]}"; do
    stem=$fresh/${proto%.proto}
    if ! grep -qE '^[[:space:]]*service[[:space:]]' "proto/$proto"; then
      rm -f "${stem}_pb2_grpc.py" "${stem}_pb2_grpc.pyi"
    fi
    printf '"""Generated from proto/%s by make generate; do not edit."""\n' "$(dirname "$proto")" \
      >"$(dirname "$stem")/__init__.py"
  done
}

generate_abi() {
  [ -f tools/generate_abi.py ] && [ -f bpf/include/abi.h ] || return 0
  # The script writes beside its own tree; run from a copy it cannot touch ours.
  local copy
  copy=$(mktemp -d -p "$fresh")
  mkdir -p "$copy/tools" "$copy/bpf" "$copy/nodeagent/dataplane" "$fresh/nodeagent/dataplane"
  cp tools/generate_abi.py "$copy/tools/"
  cp -r bpf/include "$copy/bpf/"
  (cd "$copy" && PATH="$root/.venv/bin:$PATH" "$python" tools/generate_abi.py >/dev/null)
  mv "$copy/nodeagent/dataplane/abi.py" "$fresh/nodeagent/dataplane/abi.py"
  rm -rf "$copy"
}

# Generated files in the tree: everything named *_pb2*, the package marker of a folder that holds such files, and abi.py.
list_generated() (
  cd "$1"
  [ ! -d deltaplane ] || find deltaplane -name '*_pb2*.py' -o -name '*_pb2*.pyi'
  [ ! -d deltaplane ] || find deltaplane -name __init__.py -exec grep -lE '^"""Generated from proto/' {} +
  [ ! -f nodeagent/dataplane/abi.py ] || echo nodeagent/dataplane/abi.py
)

generate_protos
generate_abi

changed=0
while read -r file; do
  if [ ! -f "$fresh/$file" ]; then
    state=stale
  elif [ ! -f "$file" ]; then
    state=missing
  elif cmp -s "$fresh/$file" "$file"; then
    continue
  else
    state=differs
  fi
  changed=$((changed + 1))
  if [ "$mode" = --check ]; then
    echo "generated file $state: $file"
    [ "$state" != differs ] || diff -u "$file" "$fresh/$file" | head -n 20 || true
  elif [ "$state" = stale ]; then
    rm "$file"
    echo "removed $file"
  else
    mkdir -p "$(dirname "$file")"
    cp "$fresh/$file" "$file"
    echo "wrote $file"
  fi
done < <({ list_generated "$root" && list_generated "$fresh"; } | LC_ALL=C sort -u)

if [ "$mode" = --check ]; then
  "$python" tools/generate_manifests.py --check || changed=$((changed + 1))
else
  "$python" tools/generate_manifests.py
fi

if [ "$mode" = --check ] && [ "$changed" -gt 0 ]; then
  echo "generated code is out of date: run make generate and commit the result" >&2
  exit 1
fi
[ "$changed" -gt 0 ] || echo "generated code is up to date"
