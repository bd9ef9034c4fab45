# Textbed: the two commands are `make run` and `make test`; `make help` lists the others.
#
# Every target but help and clean sets the machine up first (tools/bootstrap touches nothing where
# all is there).  Steps run through tools/stage, which prints how long each took and reads what
# bootstrap had to set.  Cargo does the building side by side, hence .NOTPARALLEL here.

# --- what `make run` shows ----------------------------------------------------------------------

# The stories of the mails of 2022 and 2023 on the architectures that each names (three, but for one
# story).  Rules, bugs and what else scenarios/ has are for `make test`: too much to read at once.
RUN_STORIES = run $(sort $(wildcard scenarios/bpf-prog-pack*.tb scenarios/bcachefs-jit*.tb))
# Logs recorded on real kernels, replayed through the same checker.
RUN_LOGS = replay $(sort $(wildcard tests/logs/*/trace.txt.zst))
# What every scenario file expects, under several policies and seeds.
TEST_SCENARIOS = test scenarios

# --- settings -----------------------------------------------------------------------------------

# --locked in .ci/run; empty, a new dependency may be added to Cargo.lock on the way.
LOCKED =
# Folders with data from outside of the repository, for `make conform`.
LOGS =
LITMUS =
FORMATS =
# Time for each target of `make fuzz`.
SECONDS =

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TEXTBED := $(TARGET_DIR)/debug/textbed
# Make's own flags (-j, its job server) mean nothing to cargo and the builds below it.
CARGO := env -u MAKEFLAGS -u MFLAGS cargo
STAGE := tools/stage
# A finding (status 1) is what a story about a bug is to have; 2 and 3 are failures.
SHOWN := --ok "0 1"

.NOTPARALLEL:
.PHONY: run test firmware firmware-check bench conform fuzz fmt lint doc ci clean help set-up
.PHONY: test-build test-run test-cargo test-scenarios test-without-vcpu
.PHONY: lint-format lint-clippy lint-shell

run: set-up ## the stories on all three architectures, then the recorded logs
	@$(STAGE) 'build' $(CARGO) build $(LOCKED) -p textbed-cli
	@$(STAGE) $(SHOWN) 'stories' $(TEXTBED) $(RUN_STORIES)
	@$(STAGE) $(SHOWN) 'recorded logs' $(TEXTBED) $(RUN_LOGS)

test: ## everything that tells whether this tree is right
test: set-up test-build test-run test-cargo test-scenarios test-without-vcpu firmware-check

# The same packages and targets as the tests have: cargo would else choose features anew and build
# dependencies twice.
test-build: set-up
	@$(STAGE) 'build' $(CARGO) build $(LOCKED) --workspace --lib --bins --tests

test-run: test-build
	@$(STAGE) --quiet $(SHOWN) 'stories' $(TEXTBED) $(RUN_STORIES)
	@$(STAGE) --quiet $(SHOWN) 'recorded logs' $(TEXTBED) $(RUN_LOGS)

test-cargo: test-build
	@$(STAGE) 'tests' $(CARGO) test $(LOCKED) --workspace --no-fail-fast

test-scenarios: test-build
	@$(STAGE) 'scenarios' $(TEXTBED) $(TEST_SCENARIOS)

test-without-vcpu: test-build
	@$(STAGE) 'without CPUs' tools/without-vcpu $(LOCKED)

firmware: ## rebuild firmware/elf and tests/mmu/guest/elf (needs cross binutils)
	@$(STAGE) 'firmware' $(MAKE) -C firmware
	@$(STAGE) 'guests' $(MAKE) -C tests/mmu/guest

firmware-check: ## rebuild them elsewhere and compare; SKIPPED without cross binutils
	@$(STAGE) 'firmware-check' tools/firmware-check

bench: set-up ## benchmarks, in the release profile; instruction counts against their bounds
	@$(STAGE) 'benchmarks' $(CARGO) bench $(LOCKED) --workspace
	@$(STAGE) 'instruction counts' tools/count

conform: set-up ## comparisons with data from outside: LOGS=DIR LITMUS=DIR FORMATS=DIR
	@$(STAGE) 'conform' tools/conform '$(LOGS)' '$(LITMUS)' '$(FORMATS)'

fuzz: set-up ## coverage-guided fuzzing of the log reader, SECONDS for each target (default 600)
	@$(STAGE) 'fuzz' tools/fuzz $(SECONDS)

fmt: ## format the sources
	@$(CARGO) fmt --all

lint: lint-format lint-clippy lint-shell ## formatting, clippy with warnings denied, shell scripts

lint-format: set-up
	@$(STAGE) 'formatting' $(CARGO) fmt --all --check

lint-clippy: set-up
	@$(STAGE) 'clippy' $(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

lint-shell:
	@$(STAGE) 'shell scripts' tools/shell-check

doc: set-up ## the documentation of all packages, warnings denied
	@RUSTDOCFLAGS='-D warnings' $(STAGE) 'documentation' \
	    $(CARGO) doc $(LOCKED) --workspace --no-deps

ci: ## what a change has to pass: make test, lint, doc; prints times and totals
	@.ci/run

clean: ## remove what was built, and the local environment of tools/bootstrap
	@rm -rf target .venv

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1	\2/p' Makefile | expand -t 16

set-up:
	@tools/bootstrap
