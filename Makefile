# Everything a developer or CI runs. `make help` lists the targets; the work is done by tools/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

.DEFAULT_GOAL := help

##@ Daily

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## Install what is missing: Debian packages (as root), .venv with pinned packages
	@tools/setup.sh

.PHONY: build
build: setup ## Compile the BPF programs and the CNI binary

.PHONY: test
test: setup build ## All that CI runs: setup, build, check, tests (as root: everything)
	@status=0; tools/check.sh || status=1; tools/test.sh || status=1; exit $$status

.PHONY: demo
demo: setup ## Show a cluster of network namespaces at work (as root), or in memory where that cannot be
	@if $(CAN_BUILD); then $(MAKE) --no-print-directory build; \
	  else echo "build: left out: no clang, llvm-strip, gcc or libbpf-dev here"; fi
	@.venv/bin/deltaplane demo $(ARGS)

.PHONY: bench
bench: setup build ## Measure: the load shapes of bench/
	@.venv/bin/python -m bench

.PHONY: bench-scale
bench-scale: setup ## Measure many agents: the delta stream beside endpoint objects and slices (ARGS="--nodes 20")
	@.venv/bin/python -m bench scale $(ARGS)

.PHONY: bench-services
bench-services: setup build ## Measure connections to services: ours, direct, and kube-proxy's rules (as root)
	@.venv/bin/python -m bench services $(ARGS)

.PHONY: bench-pinger
bench-pinger: setup build ## Measure requests to a service while everything changes, beside iptables-nft (as root)
	@.venv/bin/python -m bench pinger $(ARGS)

CYCLES ?= 100000
.PHONY: soak-reuse
soak-reuse: setup ## Use CYCLES addresses again while nodes, slicers and etcd fail, in virtual time
	@.venv/bin/python -m tests.sim.reuse_story --cycles $(CYCLES)

CHANGES ?= 10000
.PHONY: soak-tighten
soak-tighten: setup build ## Tighten CHANGES policies under traffic: no packet may pass after a receipt (as root)
	@.venv/bin/python -m tests.tighten --changes $(CHANGES)

.PHONY: soak-rolling
soak-rolling: setup build ## Open COUNT connections to a service whose 20 backends roll: none may fail (COUNT=100000)
	@.venv/bin/python -m tests.rolling --count $(or $(COUNT),100000)

.PHONY: sim
sim: setup ## Tell SEEDS stories of the delta stream in virtual time, every invariant asserted (SEEDS=2000)
	@.venv/bin/python -m tests.sim --seeds $(or $(SEEDS),2000)

.PHONY: chaos
chaos: setup build ## Let everything fail while everything changes, then compare it all (MINUTES=10 SEED=…, as root)
	@.venv/bin/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: fuzz
fuzz: setup build ## Change what comes from outside at random, SECONDS=600 each: messages, CNI, YAML, DNS, packets (as root)
	@tools/fuzz.sh --seconds $(or $(SECONDS),600) $(ARGS)

.PHONY: soak-ipam
soak-ipam: setup ## Search interleavings of address operations for a double allocation or a leak (COUNT=1000000 SEED=0)
	@PYTHONHASHSEED=0 .venv/bin/python -m tests.soak $(or $(COUNT),1000000) --seed $(or $(SEED),0)
	@PYTHONHASHSEED=0 .venv/bin/python -m tests.soak --real $(or $(REAL),1000) --seed $(or $(SEED),0)
	@SOAK_HISTORY_SECONDS=$(or $(SECONDS_OF_HISTORY),60) .venv/bin/python -m pytest -q tests/services/test_history.py

##@ Before a commit

.PHONY: check
check: setup ## Static checks: format, lint, types, imports, protos, C, generated code
	@tools/check.sh

.PHONY: format
format: setup ## Format Python and C in place
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix-only --quiet --select I .
	@find bpf nodeagent/cni/shim nodeagent/services -name build -prune -o -name '*.[ch]' -print0 2>/dev/null | xargs -0r clang-format -i

.PHONY: generate
generate: setup ## Regenerate what is committed: protobuf code, the Python twin of bpf/include/abi.h
	@tools/generate.sh

.PHONY: generate-check
generate-check: setup ## Fail if generated code differs from its source
	@tools/generate.sh --check

.PHONY: lock
lock: setup ## Pin the newest versions that pyproject.toml allows in requirements/
	@tools/lock.sh

##@ Now and then

.PHONY: preflight
preflight: ## Say what this machine can do and what is left out
	@tools/preflight.sh

.PHONY: conformance
conformance: setup build ## Policies, transfers, services, masquerading in every routing mode (as root)
	@DELTAPLANE_MODES=every .venv/bin/pytest tests/e2e/test_network_policies.py tests/e2e/test_routing.py \
	  tests/e2e/test_services.py tests/e2e/test_service_traffic.py tests/bpf/test_conformance_packets.py
	@for routing in native vxlan; do for mtu in 1500 9000; do \
	  .venv/bin/deltaplane demo --real --name demo$$mtu --routing $$routing --mtu $$mtu; done; done

.PHONY: conformance-tls
conformance-tls: setup build ## The demo and every test with a lab, with certificates between all processes (as root)
	@.venv/bin/deltaplane demo --real --name demotls --tls
	@DELTAPLANE_TLS=1 .venv/bin/pytest tests/e2e

.PHONY: test-kubernetes
test-kubernetes: setup ## The bridge's tests, also against the kube-apiserver that KUBECONFIG names
	@[ -n "$${KUBECONFIG:-}" ] || echo "test-kubernetes: KUBECONFIG is not set: no real kube-apiserver is asked"
	@DELTAPLANE_TEST_KUBERNETES=1 .venv/bin/pytest tests/kubernetes $(ARGS)

.PHONY: wheel
wheel: setup build ## Build dist/deltaplane-*.whl with the BPF objects and the CNI binary in it
	@.venv/bin/uv build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir dist .
	@ls dist/*.whl

.PHONY: clean
clean: ## Remove what was built, and caches; keep .venv
	@rm -rf bpf/build build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf

# --- C -------------------------------------------------------------------------------------------

CLANG ?= clang
LLVM_STRIP ?= llvm-strip
CC := gcc
SHIM_SOURCES := $(wildcard nodeagent/cni/shim/*.c)
# Compiled by the bench that needs it, not by `make build`.
LOAD_SOURCES := $(wildcard bench/datapath/*.c bench/services/*.c)
MAGLEV := build/lib/libdeltaplane-maglev.so
SHIM := $(if $(SHIM_SOURCES),build/bin/deltaplane-cni build/bin/deltaplane-ipam)
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OBJECTS := $(BPF_SOURCES:bpf/%.bpf.c=bpf/build/%.bpf.o)

BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(shell uname -m)))
# Recursive: asked when used, because `make setup` may have to install gcc first. Debian keeps asm/types.h there, and
# clang does not look for it when the target is bpf.
MULTIARCH_INCLUDE = /usr/include/$(shell $(CC) -print-multiarch 2>/dev/null)
# -g is for BTF; llvm-strip -g then drops the DWARF and keeps the BTF.
# linux/if.h reads sys/socket.h. That asks for the C library of 32 bits, which nobody has, unless it sees the machine's
# name, which clang does not define when the target is bpf.
BPF_CFLAGS = -O2 -g -Wall -Werror -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -D__$(shell uname -m)__ -Ibpf/include -idirafter $(MULTIARCH_INCLUDE)
SHIM_CFLAGS := -O2 -Wall -Wextra -Werror -static
# Whether there is what `build` needs; that it compiles is another question.
CAN_BUILD = type $(CLANG) $(LLVM_STRIP) $(CC) >/dev/null 2>&1 && \
  printf '\#include <linux/bpf.h>\n\#include <bpf/bpf_helpers.h>\n' | \
  $(CLANG) $(BPF_CFLAGS) -x c -fsyntax-only - >/dev/null 2>&1

build: $(BPF_OBJECTS) $(SHIM) $(MAGLEV)

# Through a temporary name: an interrupted or a parallel build never leaves half an object.
bpf/build/%.bpf.o: bpf/%.bpf.c Makefile | setup
	@mkdir -p $(@D)
	@echo "build: $@"
	@$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF bpf/build/$*.bpf.d -MT $@ -c $< -o $@.$$$$ && $(LLVM_STRIP) -g $@.$$$$ && mv $@.$$$$ $@

build/bin/deltaplane-cni: $(SHIM_SOURCES) $(wildcard nodeagent/cni/shim/*.h) Makefile | setup
	@mkdir -p $(@D)
	@echo "build: $@"
	@$(CC) $(SHIM_CFLAGS) $(SHIM_SOURCES) -o $@.$$$$ && mv $@.$$$$ $@

# One binary under two names: the configuration says which of the two is meant.
build/bin/deltaplane-ipam: build/bin/deltaplane-cni
	@ln -f $< $@

$(MAGLEV): nodeagent/services/maglev.c Makefile | setup
	@mkdir -p $(@D)
	@echo "build: $@"
	@$(CC) -O2 -Wall -Wextra -Werror -shared -fPIC $< -o $@.$$$$ && mv $@.$$$$ $@

-include $(BPF_OBJECTS:.o=.d)

# More warnings than a build stops at; part of `make check`.
.PHONY: warnings
warnings:
	@for file in $(BPF_SOURCES); do \
	  $(CLANG) $(BPF_CFLAGS) -Wextra -Wshadow -Wno-unused-parameter -fsyntax-only $$file; done
	@for file in $(SHIM_SOURCES) nodeagent/services/maglev.c; do \
	  $(CC) $(SHIM_CFLAGS) -Wshadow -Wstrict-prototypes -fsyntax-only $$file; done
	@for file in $(LOAD_SOURCES); do \
	  $(CC) $(SHIM_CFLAGS) -pthread -Wshadow -Wstrict-prototypes -fsyntax-only $$file; done
