#!/usr/bin/env bash
# Prints how long it takes to build the command from nothing, without clouds, with each, and with all. A build from nothing each, in a
# folder of its own: close to half an hour on two processors. What is not measured is downloading crates.
#
#   benches/build-times.sh [FEATURES…]     `none`, `azure`, `aws`, `gcp`, `azure,aws,gcp`; all of these when none is named
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- none azure gcp aws azure,aws,gcp
cargo fetch --locked --quiet
printf '%-16s %8s %8s\n' features crates seconds
for features; do
    target=$(mktemp -d)
    trap 'rm -rf "$target"' EXIT
    arguments=(--locked --package aicert-cli)
    [ "$features" = none ] || arguments+=(--features "$features")
    crates=$(cargo tree "${arguments[@]}" --edges normal,build --prefix none --format '{p}' | sort -u | wc -l)
    start=$SECONDS
    CARGO_TARGET_DIR=$target cargo build --quiet "${arguments[@]}"
    printf '%-16s %8d %8d\n' "$features" "$crates" $((SECONDS - start))
    rm -rf "$target"
done
