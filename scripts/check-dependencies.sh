#!/usr/bin/env bash
# Checks the dependency rules of ARCHITECTURE.md: who may depend on whom, no C below the verifier, licences, advisories.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
fail() { echo "error: $*" >&2; failed=1; }

# The crates of ours that a crate depends on in a normal build; all features on, unless other options are given.
ours() {
    cargo tree --locked -p "$1" "${2:---all-features}" -e normal --prefix none --format '{p}' |
        sed -nE 's/^(aicert-[a-z-]+) .*/\1/p' | sort -u | grep -vx "$1" || true
}

expect() { # crate, allowed crates
    local crate=$1; shift
    for dependency in $(ours "$crate"); do
        [[ " $* " == *" $dependency "* ]] || fail "$crate depends on $dependency: it may depend on: ${*:-no crate of ours}"
    done
}

expect aicert-core
expect aicert-verify aicert-core
expect aicert-inputs aicert-core
expect aicert-runtime-docker aicert-core
expect aicert-tpm aicert-core
expect aicert-swtpm-testing aicert-core aicert-tpm
expect aicert-init
expect aicert-client aicert-core aicert-verify
expect aicert-cloud-common aicert-core
for cloud in azure aws gcp; do expect aicert-cloud-$cloud aicert-cloud-common aicert-core aicert-verify; done
expect aicert-cloud-testing
expect aicert-testing aicert-core aicert-inputs aicert-runtime-docker aicert-server aicert-swtpm-testing aicert-tpm aicert-verify
expect aicert-cloud-qemu aicert-core aicert-swtpm-testing aicert-tpm aicert-verify
expect aicert-server aicert-core aicert-inputs aicert-runtime-docker aicert-tpm aicert-verify
for dependency in $(ours aicert-server --no-default-features); do
    [[ $dependency == aicert-core || $dependency == aicert-verify ]] ||
        fail "the library of aicert-server depends on $dependency: only its command names implementations"
done

# The verifier is pure Rust: nothing in its tree links or compiles C, and nothing is asynchronous.
for forbidden in cc cmake bindgen pkg-config tokio async-trait; do
    if cargo tree --locked -p aicert-verify -e normal,build --prefix none --format '{p}' | grep -q "^$forbidden v"; then
        fail "aicert-verify has $forbidden in its dependency tree"
    fi
done
while read -r crate; do
    # linux-raw-sys is Rust: the numbers of system calls, for measuring directories.
    [[ $crate == *-sys && $crate != linux-raw-sys ]] && fail "aicert-verify has $crate in its dependency tree"
done < <(cargo tree --locked -p aicert-verify -e normal,build --prefix none --format '{p}' | cut -d' ' -f1 | sort -u)
cargo check --locked --quiet -p aicert-verify --no-default-features || fail "aicert-verify does not build without default features"

# The command starts software TPMs only when built to.
if cargo tree --locked -p aicert-cli --no-default-features -e normal --prefix none --format '{p}' | grep -q '^aicert-swtpm-testing '; then
    fail "aicert-cli depends on aicert-swtpm-testing without its feature simulation"
fi

# The SDKs of clouds take minutes to compile: who does not ask for them does not wait for them.
if cargo tree --locked -p aicert-cli -e normal --prefix none --format '{p}' | grep -E '^(aws-|azure_|google-cloud-|aicert-cloud-(aws|azure|gcp) )'; then
    fail "aicert-cli has the SDK of a cloud in its dependency tree without its features aws, azure and gcp"
fi

if ! command -v cargo-deny >/dev/null; then
    fail "cargo-deny is missing: cargo install --locked cargo-deny"
else
    cargo deny --locked check licenses bans sources || fail "cargo deny found something"
    # The advisory database is a git repository of its own: not reachable from every build machine.
    if cargo deny --locked check advisories 2>/tmp/aicert-advisories.$$; then
        :
    elif grep -qiE 'failed to (fetch|clone|open|load)|unable to|network|connect|resolve' /tmp/aicert-advisories.$$; then
        echo "warning: the advisory database could not be had; advisories were not checked" >&2
    else
        cat /tmp/aicert-advisories.$$ >&2; fail "cargo deny found advisories"
    fi
    rm -f /tmp/aicert-advisories.$$
fi

exit $failed
