# make          the static binary, target/*/release/weft
# make help     everything else
SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build demo test lint bench sim fuzz clean help
MAKEFLAGS += --no-print-directory
export PATH := $(HOME)/.cargo/bin:$(PATH)

# cargo never runs as root where there is another user: `sudo make X` is `make X` as that user. What needs root is run with sudo.
ifneq ($(filter-out root,$(SUDO_USER)),)
ifeq ($(shell id -u),0)
FORWARD := $(foreach v,CI YES KEEP PEERS ROUNDS SECONDS TARGET SIM,$(if $($(v)),$(v)="$($(v))"))
build demo test lint bench sim fuzz clean help:
	@exec sudo -u "$(SUDO_USER)" -H env -u MAKELEVEL -u MAKEFLAGS $(FORWARD) $(MAKE) $@
DELEGATED := yes
endif
endif

ifndef DELEGATED
# $(shell) does not see what is exported here before make 4.4.
HOST := $(shell PATH="$(PATH)" rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN := $(abspath $(or $(CARGO_TARGET_DIR),target))/$(HOST)/release
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
RUNNER_NAME := CARGO_TARGET_$(shell echo "$(HOST)" | tr a-z- A-Z_)_RUNNER
AS_ROOT := WEFT_BIN="$(BIN)/weft" $(if $(SUDO),$(RUNNER_NAME)="$(SUDO)")
NEXTEST := $(shell PATH="$(PATH)" command -v cargo-nextest)

# Always everything, with one profile: another selection means other features, and so another build of what they share.
BUILD := cargo build --release --locked --workspace --bins

build: ## Build the static binary
	$(BUILD)

demo: ## Three Docker hosts on this machine, shown in under five minutes (KEEP=1 leaves them up)
	@tests/setup.sh demo
	$(BUILD)
	@$(SUDO) env WEFT_BIN="$(BIN)/weft" "$(BIN)/weft-demo" $(if $(filter-out 0,$(KEEP)),--keep)

test: ## What CI runs: lint, everything we claim, a short bench
	@tests/setup.sh test
	@$(MAKE) lint
	$(BUILD)
ifneq ($(NEXTEST),)
	cargo nextest run --release --locked --workspace -E 'not binary(lab)'
	$(AS_ROOT) cargo nextest run --release --locked --workspace -E 'binary(lab)'
else
	cargo test --release --locked --workspace --exclude weft-lab --exclude weft-tests
	cargo test --release --locked -p weft-lab -p weft-tests --lib --bins --test house
	$(AS_ROOT) cargo test --release --locked -p weft-lab -p weft-tests --test lab -- --test-threads 1
endif
	$(SUDO) env WEFT_BIN="$(BIN)/weft" "$(BIN)/weft-bench" --short

lint: ## Format, clippy, and the rules of the house
	cargo fmt --all -- --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo test --release --locked -q --workspace --test house

bench: ## weft beside veth, VXLAN, fastd and tinc (PEERS="vxlan weft" ROUNDS=1 to choose)
	@tests/setup.sh bench
	$(BUILD)
	@$(SUDO) env WEFT_BIN="$(BIN)/weft" "$(BIN)/weft-bench" --out "$(CURDIR)/bench/results"

sim: ## A mesh of 1,000 hosts on virtual time, and one real weft that knows of it (SIM="--hosts 300 --apart 60" to choose)
	@tests/setup.sh sim
	$(BUILD)
	@$(SUDO) "$(BIN)/weft-sim" --weft "$(BIN)/weft" $(SIM)

fuzz: ## Look for bytes that break a promise, a minute for each target (SECONDS=600 TARGET="gossip control" to choose)
	@tests/setup.sh fuzz
	@SECONDS_EACH="$(or $(SECONDS),60)" TARGET="$(TARGET)" KEEP="$(filter-out 0,$(KEEP))" tests/fuzz/run.sh

clean: ## Remove what was built
	cargo clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
endif
