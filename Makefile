# Everything a person needs: `make demo` shows what aicert does, `make test` runs all tests.
# Both install what is missing (scripts/setup.sh says what) and start Docker if it is not running.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Everything. The command has no clouds then, as it is built by default; with CLOUDS it has all of them.
WORKSPACE := --workspace --locked
CLOUDS := --features aicert-tests/clouds

.PHONY: help setup build demo demo-vm test test-large lint docs deny bench fuzz image image-check clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: ## Install missing tools and start Docker
	@scripts/setup.sh

build: setup ## Build the aicert command
	$(CARGO) build --release --locked -p aicert-cli

demo: build ## Train a small model, certify it, verify the proof, and see a forgery rejected
	@examples/penguins/demo.sh target/release/aicert

demo-vm: build ## The same on a machine that is booted for it and attested first; builds the machine's image if need be
	@examples/penguins/demo-vm.sh target/release/aicert

image: setup ## Build the base image that machines boot, in target/image
	@rm -rf target/image
	image/base/build --output target/image

image-check: setup ## Build the base image twice, from nothing but packages, and compare the bytes
	image/base/reproduce

# What is done with clouds is mostly waiting for them: as often as not, for nothing to show any more.
test: setup ## Run all tests, against real TPM simulators, a real Docker, and machines that boot
	@scripts/test-tools.sh
	$(CARGO) test $(WORKSPACE) --no-fail-fast
	$(CARGO) test $(WORKSPACE) $(CLOUDS) --no-fail-fast --test clouds -- --test-threads 8

test-large: setup ## The one test that make test leaves out: outputs of 2 GiB, from a machine
	$(CARGO) test --locked -p aicert-tests --test vm -- --ignored --nocapture

# Fuzzers need a nightly compiler to run, and none to be checked; the path keeps libFuzzer from being built for that.
lint: ## Format, clippy, and whether the fuzzers compile
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(WORKSPACE) $(CLOUDS) --all-targets -- -D warnings
	CUSTOM_LIBFUZZER_PATH=/nonexistent/libFuzzer.a RUSTFLAGS="--cfg fuzzing" \
		$(CARGO) check --quiet --locked --manifest-path fuzz/Cargo.toml --bins --examples --target-dir target/fuzz-check

docs: ## Build the documentation of all crates
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(WORKSPACE) $(CLOUDS) --no-deps

deny: ## Check licences, advisories and who depends on whom
	scripts/check-dependencies.sh

bench: build ## Measure what aicert adds around a job, and how fast it verifies, each against a yardstick
	python3 benches/run.py target/release/aicert
	$(CARGO) bench --locked -p aicert-tests --bench verify

fuzz: ## Run every fuzzer for FUZZ_SECONDS (10), JOBS (1) at a time
	@FUZZ_SECONDS="$(FUZZ_SECONDS)" JOBS="$(JOBS)" fuzz/run.sh

clean: ## Remove what was built
	$(CARGO) clean
