#!/usr/bin/env bash
# The main job for real: trains a small model under aicert, verifies the proof in three independent ways, shows it,
# and then shows that one changed byte of the model is found. Everything it makes is in target/demo.
set -euo pipefail
aicert=$(realpath "${1:?usage: demo.sh PATH-TO-AICERT}")
here=$(cd "$(dirname "$0")" && pwd)
demo=$here/../../target/demo
rm -rf "$demo" && mkdir -p "$demo" && demo=$(cd "$demo" && pwd)

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
try() { printf '$ %s\n' "$*"; "$@"; }

say "A git repository with the training code, tagged v1.0.0"
cp -r "$here/src" "$demo/code"
git -C "$demo/code" init --quiet --initial-branch=main
git -C "$demo/code" -c core.autocrlf=false add .
env GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z \
    git -C "$demo/code" -c user.name=demo -c user.email=demo@example.org -c commit.gpgsign=false commit --quiet -m "Train on penguins"
git -C "$demo/code" tag v1.0.0
git clone --quiet --bare "$demo/code" "$demo/penguins.git"
git -C "$demo/code" log --oneline --decorate
cp "$here/data/penguins.csv" "$demo/"
sed "s|@DEMO@|$demo|" "$here/aicert.yaml" > "$demo/aicert.yaml"

cd "$demo"
say "Train, measure, sign"
try "$aicert" --output-bom proof.json --outputs model

say "Verify the proof, and that the model is the one it speaks of"
try "$aicert" verify proof.json --trust-anchor proof.ca.pem --outputs model

say "What it says"
try "$aicert" inspect proof.json --trust-anchor proof.ca.pem

say "Others agree: sha256sum, the TPM's own tools, and a dozen lines of Python"
try sha256sum model/*
try "$aicert" inspect proof.json --trust-anchor proof.ca.pem --export-quote quote > quote.txt
try tpm2_checkquote -u quote/ak.pem -m quote/quote.msg -s quote/quote.sig -f quote/quote.pcrs -g sha256 -q "$(cat quote/qualifying-data.hex)" > quote/checkquote.txt
echo "tpm2_checkquote accepts the quote"
try python3 "$here/../../docs/replay_log.py" proof.json

say "A forgery: one byte of the model is changed"
cp -r model forged
python3 - <<'PYTHON'
with open("forged/model.safetensors", "r+b") as file:
    file.seek(-1, 2); last = file.read(1)[0]
    file.seek(-1, 2); file.write(bytes([last ^ 1]))
PYTHON
status=0
try "$aicert" verify proof.json --trust-anchor proof.ca.pem --outputs forged || status=$?
[ "$status" -eq 1 ] || { echo "error: the forged model was not rejected (exit status $status)" >&2; exit 1; }

say "Done. The proof is $demo/proof.json, the model $demo/model"
