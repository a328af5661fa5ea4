# make up      installs what is missing, builds, boots a cluster on this machine, says what to type next
# make test    the CI set of checks
# make down    stops the cluster and leaves nothing behind
# make bench, make failover, make soak    measure and judge a cluster of their own (SECONDS=n, COUNT=n, SEED=n)
# make bench-api    what requests to the API cost: creates, reads, lists, watches (SECONDS=n for each run, RUNS=n, KEYS=n, MIB=n, ONLY=words)
# make compat  every stable operation of upstream's API, tried and read back; writes the table in docs/compatibility.md (FACTS=folder)
# make schemathesis    requests made out of our OpenAPI document; none may find the server at fault (SECONDS=n, SEED=n)
# make chaos   ten minutes of faults on the store alone, judged exactly (SECONDS=n, SEED=n); FILE=… judges a kept history
# make sim     the store simulated, thousands of seeds (COUNT=n, SEED=n is the first); with SEED=n alone that one again
# make bench-store    the store beside etcd (SECONDS=n for each run, RUNS=n, COUNT=n kills, KEYS=n at most, ONLY=words; CALM=n looks for elections instead, ONLY=idle or loaded)
#
# NAME=x chooses the cluster (default "default"); MASTERS=n and NODES=n its size; ARGS=… are more arguments of "trireme up".

SHELL := /bin/bash
NAME ?= default
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/debug/trireme

# RocksDB takes more than ten minutes to compile. The archive is kept outside the tree for the next clean build.
ROCKSDB_VERSION := $(shell sed -n '/^name = "librocksdb-sys"$$/{n;s/^version = "\(.*\)"$$/\1/p}' Cargo.lock)
ROCKSDB_CACHE := $(HOME)/.cache/trireme/rocksdb-$(ROCKSDB_VERSION)
ifndef ROCKSDB_LIB_DIR
ifneq ($(wildcard $(ROCKSDB_CACHE)/librocksdb.a),)
export ROCKSDB_LIB_DIR := $(ROCKSDB_CACHE)
export ROCKSDB_STATIC := 1
endif
endif

.PHONY: up down status deps build test lint bench bench-api failover soak compat schemathesis chaos sim bench-store check-root help

help:
	@sed -n '/^# /s/^# //p;/^$$/q' Makefile

up: check-root deps build
	@$(BIN) up --name $(NAME) $(if $(MASTERS),--masters $(MASTERS)) $(if $(NODES),--nodes $(NODES)) $(ARGS)

down:
	@if [ -x $(BIN) ]; then exec $(BIN) down --name $(NAME) $(if $(KEEP_DATA),--keep-data); \
	elif [ -x .trireme/$(NAME)/bin/trireme ]; then exec .trireme/$(NAME)/bin/trireme down --name $(NAME); \
	else echo "nothing is built, so nothing can be running; if it is, run \"make build\" first"; fi

status:
	@if [ -x $(BIN) ]; then exec $(BIN) status --name $(NAME); \
	elif [ -x .trireme/$(NAME)/bin/trireme ]; then exec .trireme/$(NAME)/bin/trireme status --name $(NAME); \
	else echo "nothing is built, and there is no cluster \"$(NAME)\" here; \"make up\" builds and boots one"; exit 2; fi

check-root:
	@if [ "$$(id -u)" != 0 ]; then \
		echo "make up has to run as root, since it makes network namespaces, mounts and cgroups. Either run"; \
		echo "    sudo -E env \"PATH=\$$PATH\" make up NAME=$(NAME)"; \
		echo "or build as yourself and boot as root:"; \
		echo "    make build && sudo $(BIN) up --name $(NAME)"; \
		exit 1; \
	fi

deps:
	@.ci/deps

build:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing; install Rust, for example from https://rustup.rs"; exit 1; }
	@[ -x $(BIN) ] || echo "building; the first time takes a while$(if $(ROCKSDB_LIB_DIR),, (RocksDB alone over ten minutes on two cores))"
	@$(CARGO) build --locked -p trireme
	@.ci/keep-rocksdb "$(TARGET)" "$(ROCKSDB_CACHE)"

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo-deny --offline check bans licenses sources; \
		cargo-deny --offline check advisories || { \
			[ -d "$(HOME)/.cargo/advisory-dbs" ] && exit 1; echo "advisories: no database on this machine"; }; \
	else echo "cargo-deny is not installed; the tidy test checks bans, licenses and sources by the same file"; fi

test: deps
	@# The tests' own executables first: building the program for them afterwards costs only its link.
	$(CARGO) test --locked --workspace --no-run
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory lint
	TRIREME_BIN=$(abspath $(BIN)) $(CARGO) test --locked --workspace --no-fail-fast

# Programs of chaos-tests; settings are taken from the environment: make failover COUNT=5.
BENCH := TRIREME_BIN=$(abspath $(BIN)) $(if $(SECONDS),SECONDS=$(SECONDS)) $(if $(COUNT),COUNT=$(COUNT)) \
	$(if $(SEED),SEED=$(SEED)) $(if $(RUNS),RUNS=$(RUNS)) $(if $(KEYS),KEYS=$(KEYS)) $(if $(MIB),MIB=$(MIB)) \
	$(if $(FACTS),FACTS=$(FACTS)) $(if $(ONLY),ONLY="$(ONLY)") $(if $(CALM),CALM=$(CALM)) $(TARGET)/debug/trireme-bench

bench bench-api failover soak compat schemathesis: check-root deps build
	@$(CARGO) build --locked -p trireme -p trireme-chaos-tests
	@$(BENCH) $@

# In one call: built one by one, crates of the registry would be compiled again for each selection's features.
bench-store: deps
	@$(CARGO) build --locked -p trireme -p trireme-raftstore -p trireme-chaos-tests --bins --example store-server
	@$(BENCH) $@

# PROOFS=1 shows instead that the checkers see known bugs, each with its guard taken out.
chaos: check-root deps
	@$(CARGO) build --locked -p trireme -p trireme-raftstore -p trireme-chaos-tests --bins --example store-server --example power
	@$(BENCH) $@ $(FILE) $(if $(PROOFS),proofs)
	@$(if $(FILE)$(PROOFS),,COUNT=$(or $(COUNT),3000) $(BENCH) sim)

sim: deps
	@$(CARGO) build --locked -p trireme -p trireme-chaos-tests
	@$(BENCH) $@
