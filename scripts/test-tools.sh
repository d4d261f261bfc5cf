#!/usr/bin/env bash
# Gets what the tests of the clouds need from the Python package index, every package by its hash: moto's server, which stands in
# for Amazon EC2, and the packages that carry the vendors' published API definitions, to which requests are held. Nothing of it is
# installed outside of target/test-tools, and nothing but tests uses it.
#
#   scripts/test-tools.sh           get what is missing
#   scripts/test-tools.sh --lock    write the lists anew, with the newest versions of what they name in their first lines
set -euo pipefail
cd "$(dirname "$0")/.."
lists=scripts/test-tools
tools=target/test-tools
fail() { printf 'test-tools: error: %s\n' "$*" >&2; exit 1; }

python3 -c 'import venv, ensurepip' 2>/dev/null || fail "Python cannot make virtual environments: install python3-venv"

# A list begins with what is asked for, after `#:`, and has every package with the hashes of all its files.
asked() { sed -n 's/^#: //p' "$1"; }

if [ "${1:-}" = --lock ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --upgrade pip packaging requests
    for list in $lists/*.txt; do
        dependencies=()
        [ "$(basename "$list")" = definitions.txt ] && dependencies=(--no-deps)
        # shellcheck disable=SC2046 # one word a package
        "$work/venv/bin/pip" install --quiet --dry-run --ignore-installed "${dependencies[@]}" --report "$work/report.json" $(asked "$list")
        "$work/venv/bin/python" $lists/lock.py "$work/report.json" "$list" >"$work/list"
        cp "$work/list" "$list"
    done
    exit
elif [ $# -gt 0 ]; then
    echo "usage: scripts/test-tools.sh [--lock]" >&2
    exit 2
fi

version=$(cat "$0" $lists/* | sha256sum | cut -d' ' -f1)
[ "$(cat "$tools/version" 2>/dev/null)" = "$version" ] && exit
echo "test-tools: getting moto's server and API definitions from the Python package index"
rm -rf "$tools"
mkdir -p "$tools"
pip() { "$tools/venv/bin/pip" --disable-pip-version-check install --quiet --require-hashes --no-deps "$@" || fail "pip could not install the packages; its messages are above"; }
python3 -m venv "$tools/venv"
pip -r $lists/server.txt
pip --target "$tools/packages" -r $lists/definitions.txt
# The package of botocore is among those of the server.
PYTHONPATH=$tools/packages "$tools/venv/bin/python" $lists/definitions.py "$tools/definitions"
rm -rf "$tools/packages"
echo "$version" >"$tools/version"
