#!/usr/bin/env bash
# From power-on to proof: a machine boots aicert's base image in QEMU and is attested, trains a small model, and is removed; then
# the proof is verified by itself, and two forgeries are rejected. Everything it makes is in target/demo-vm, the image in
# target/image. ACCELERATOR=kvm uses this computer's virtualization, which is much faster than emulation.
set -euo pipefail
aicert=$(realpath "${1:?usage: demo-vm.sh PATH-TO-AICERT}")
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
demo=$root/target/demo-vm
images=$root/target/image
accelerator=${ACCELERATOR:-tcg}
rm -rf "$demo" && mkdir -p "$demo"

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
try() { printf '$ %s\n' "$*"; "$@"; }
refused() {
    local status=0
    try "$@" || status=$?
    [ "$status" -eq 1 ] || { echo "error: this was not rejected (exit status $status)" >&2; exit 1; }
}

# The image must be of this checkout: what is in it, and so what a proof says, changes with the source.
present=$(git -C "$root" rev-parse HEAD)
[ -z "$(git -C "$root" status --porcelain --untracked-files=all)" ] || present+=-modified
if [ -d "$images" ]; then
    found=$(python3 - "$images" <<'PYTHON'
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.reference-values.json"):
    print(json.loads(path.read_text())["images"][0].get("build"))
PYTHON
    )
    if [ "$found" != "$present" ]; then
        echo "The image in $images was built from ${found:-what nobody knows}, and this checkout is $present: it is built again."
        rm -rf "$images"
    elif [ "$present" != "${present%-modified}" ]; then
        echo "The image in $images was built from a changed checkout, perhaps with other changes; remove it, and it is built again."
    fi
fi
if [ ! -d "$images" ]; then
    say "The image that the machine boots (once for each commit)"
    (cd "$root" && try "$aicert" image build --output "$images")
fi
image=$(find "$images" -name '*.raw' -print -quit)
references=${image%.raw}.reference-values.json
[ -n "$image" ] && [ -f "$references" ] || {
    echo "error: $images has no image with reference values; remove it, and it is built again" >&2
    exit 2
}

cp -r "$here/src" "$demo/code"
cp "$here/data/penguins.csv" "$here/policy-vm.yaml" "$demo/"
sed -e "s|@DEMO@|$demo|" -e "s|@IMAGE@|$image|" -e "s|accelerator: .*|accelerator: $accelerator|" \
    "$here/aicert-vm.yaml" > "$demo/aicert.yaml"

cd "$demo"
say "Boot, attest, train, measure, sign"
begun=$SECONDS
try "$aicert" --output-bom proof.json --outputs model --policy policy-vm.yaml
echo "All of it took $((SECONDS - begun)) s."
try "$aicert" machines list

say "Verify the proof, without any machine: what was booted, and that the model is the one it speaks of"
verify=("$aicert" verify proof.json --trust-anchor proof.ca.pem --policy policy-vm.yaml)
try "${verify[@]}" --reference-values "$references" --outputs model

say "A forgery: the machine booted another image than the one it should have"
python3 - "$references" other-image.json <<'PYTHON'
import json, sys
values = json.load(open(sys.argv[1]))
image = values["images"][0]
image["name"] += " with another kernel command line"
event = next(event for event in image["events"] if event["what"] == "section .cmdline: content")
event["digests"]["sha256"] = "00" * 32
json.dump(values, open(sys.argv[2], "w"))
PYTHON
refused "${verify[@]}" --reference-values other-image.json

say "A forgery: one byte of the model is changed"
cp -r model forged
python3 - <<'PYTHON'
with open("forged/model.safetensors", "r+b") as file:
    file.seek(-1, 2); last = file.read(1)[0]
    file.seek(-1, 2); file.write(bytes([last ^ 1]))
PYTHON
refused "${verify[@]}" --reference-values "$references" --outputs forged

say "Done. The proof is $demo/proof.json, the model $demo/model"
