#!/usr/bin/env bash
# Says what this machine can do: one line for each ability that a part of the tree needs, and what is
# left out without it. Changes nothing, needs no root, always exits 0.
set -uo pipefail
cd "$(dirname "$0")/.."
# Debian keeps bpftool where only root looks.
PATH=$PATH:/usr/sbin:/sbin

# report NAME WITHOUT COMMAND...: the ability, what is lost without it, the test for it.
report() {
  local name=$1 without=$2
  shift 2
  if "$@" >/dev/null 2>&1; then
    printf '  yes  %s\n' "$name"
  else
    printf '  NO   %-34s left out: %s\n' "$name" "$without"
  fi
}

has_capability() { (((0x$(awk '/^CapEff:/ {print $2}' /proc/self/status) >> $1) & 1)); }
has_admin() { has_capability 12 && has_capability 21; } # CAP_NET_ADMIN, CAP_SYS_ADMIN
new_namespace() { unshare --net true; }
has_btf() { [ -r /sys/kernel/btf/vmlinux ]; }
has_bpffs() { grep -qw bpf /proc/filesystems; }
has_cgroup2() { grep -qw cgroup2 /proc/filesystems; }
etcd_of_venv() { .venv/bin/etcd --version; }
etcd_of_debian() { /usr/bin/etcd --version; }

echo "this machine: $(uname -srm), $(nproc) CPUs, $(awk '/^MemAvailable/ {printf "%d", $2 / 1048576}' /proc/meminfo) GiB free"
report "root (CAP_SYS_ADMIN, CAP_NET_ADMIN)" "tests/{bpf,netns,e2e,chaos}, packets in make demo" has_admin
report "network namespaces" "tests/{netns,e2e,chaos}, packets in make demo" new_namespace
report "kernel types (BTF)" "loading BPF objects" has_btf
report "bpffs" "pinned maps: an agent restart without traffic loss" has_bpffs
report "cgroup v2" "service addresses at connect time" has_cgroup2
report "clang, llvm-strip" "make build of bpf/" command -v clang llvm-strip
report "gcc" "make build of the CNI shim" command -v gcc
report "bpftool" "the lab's look into the kernel" command -v bpftool
report "iperf3" "throughput in make bench" command -v iperf3
report "etcd 3.5 in .venv" "make demo without an etcd of your own" etcd_of_venv
report "etcd 3.4 of Debian" "the store contract on an old server" etcd_of_debian
