#!/usr/bin/env bash
# Runs fuzz targets, one after another, each for FUZZ_SECONDS seconds (10): all of them, or those that are named as arguments.
# JOBS targets run at a time (1). With AICERT_TEST_VECTORS, the real evidence in that folder is among the seeds.
# Ends non-zero when an input crashed a target, takes it more than a second, or more memory than allowed, and says where it is.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-10}
jobs=${JOBS:-1}
# Inputs that take a second are kept, and judged when run alone: on a busy machine, any may. Those that take 20 end the run.
# The memory is that of the whole process, in MiB; what the heap may hold, src/lib.rs limits.
limits=(-report_slow_units=1 -timeout=20 -rss_limit_mb=512 -max_len=65536)
# All of the code is safe Rust, where a sanitizer finds little and halves the speed. SANITIZER=address turns it on.
sanitizer=${SANITIZER:-none}

fail() {
    printf 'fuzz: %s\n' "$1" >&2
    exit 1
}

command -v rustup >/dev/null || fail "rustup is missing, which brings the nightly compiler that cargo-fuzz needs: install it from rustup.rs"
command -v c++ >/dev/null || fail "a C++ compiler is missing, which libFuzzer is built with: on Debian, apt-get install g++"
if ! rustup toolchain list | grep -q '^nightly'; then
    echo "fuzz: installing the nightly compiler"
    rustup toolchain install nightly --profile minimal || fail "the nightly compiler could not be installed"
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz"
    cargo +nightly install --locked cargo-fuzz || fail "cargo-fuzz could not be installed"
fi

if [ $# -gt 0 ]; then
    targets=("$@")
else
    mapfile -t targets < <(cargo +nightly fuzz list)
fi

cargo +nightly fuzz build --sanitizer "$sanitizer"
cargo +nightly run --quiet --example seeds -- seeds ${AICERT_TEST_VECTORS:+"$AICERT_TEST_VECTORS"}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Whether every input that was slow takes less than a second when it is run again, three times if it has to be.
quick() {
    local target=$1 input
    for input in "artifacts/$target"/slow-unit-*; do
        [ -f "$input" ] || continue
        if fast "$target" "$input" || fast "$target" "$input" || fast "$target" "$input"; then
            rm "$input"
        else
            echo "fuzz: $target takes more than a second for $PWD/$input" >&2
            return 1
        fi
    done
}

fast() {
    local milliseconds
    milliseconds=$(cargo +nightly fuzz run --sanitizer "$sanitizer" "$1" "$2" 2>&1 | sed -n 's/^Executed .* in \([0-9]*\) ms$/\1/p')
    [ -n "$milliseconds" ] && [ "$milliseconds" -lt 1000 ]
}

# Runs one target; its standard output is one line.
fuzz() {
    local target=$1 log="$logs/$1" options=("${limits[@]}" "-max_total_time=$seconds" -print_final_stats=1)
    [ ! -f "dictionaries/$target.dict" ] || options+=("-dict=dictionaries/$target.dict")
    mkdir -p "corpus/$target" "seeds/$target"
    if cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" "corpus/$target" "seeds/$target" -- "${options[@]}" >"$log" 2>&1; then
        quick "$target" || return 1
        awk -v target="$target" '
            /ft: [0-9]+/ { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1) } }
            /^Done / { executions = $2; seconds = $5 }
            /stat::average_exec_per_sec/ { rate = $2 }
            /stat::peak_rss_mb/ { memory = $2 }
            END { printf "%-10s ok: %d executions in %d s (%d per second), %d edges, %d features, %d MiB\n", target, executions, seconds, rate, cov, ft, memory }
        ' "$log"
    else
        printf '%-10s FAILED\n' "$target"
        tail -n 40 "$log" >&2
        printf 'fuzz: %s failed; the input: %s\n' "$target" \
            "$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1 | grep . || echo 'none was written, see above')" >&2
        return 1
    fi
}

failed=0
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n || failed=1
    done
    fuzz "$target" &
done
while [ -n "$(jobs -p)" ]; do
    wait -n || failed=1
done
exit "$failed"
