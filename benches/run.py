#!/usr/bin/env python3
"""Measures what aicert adds, against plain Docker in the same run.

usage: run.py AICERT [ROUNDS]

Two questions, each answered as a ratio or a difference within one run, because machines are noisy:

* Is training inside `aicert run` as fast as under `docker run` with the same image, command and mounts?
* How much time does aicert add around the job, start of the command to its end, with everything cached?
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

aicert = os.path.realpath(sys.argv[1])
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
here = pathlib.Path(__file__).resolve().parent


def sh(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def configure(folder):
    shutil.copytree(here / "job", folder / "job")
    (folder / "aicert.yaml").write_text(
        "kind: python\npythonVersion: 11\nsource: {type: directory, path: ./job}\nmachine: {provider: local, tpm: swtpm}\n"
    )


def run_aicert(folder, number):
    start = time.perf_counter()
    sh(aicert, "run", "--quiet", "--output-bom", f"{number}.json", "--outputs", f"out{number}", cwd=folder)
    whole = time.perf_counter() - start
    log = {event["type"]: event["content"] for event in json.loads((folder / f"{number}.json").read_text())["measurement_log"]}
    container = log["execution_finished"]["wall_milliseconds"] / 1000
    return float((folder / f"out{number}" / "seconds.txt").read_text()), whole - container, log["container_built"]["image"]


def run_docker(folder, number, image):
    out = folder / f"docker{number}"
    out.mkdir()
    sh("docker", "run", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{folder}/job:/workspace/src:ro",
       "-v", f"{out}:/workspace/outputs", "-w", "/workspace/src", image, "python3", "/workspace/src/main.py")  # fmt: skip
    return float((out / "seconds.txt").read_text())


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    configure(folder)
    _, _, image = run_aicert(folder, "warm-up")  # builds the base image where it is not there
    inside, plain, added = [], [], []
    for number in range(rounds):
        seconds, around, _ = run_aicert(folder, number)
        inside.append(seconds)
        added.append(around)
        plain.append(run_docker(folder, number, image))

ratio = statistics.median(inside) / statistics.median(plain)
print(f"training of {statistics.median(plain):.2f} s with 20,000 printed lines, {rounds} rounds each, medians")
print(f"inside aicert / plain docker run   {ratio:.3f}   (target <= 1.01)   rounds: {[round(a / b, 3) for a, b in zip(inside, plain)]}")
print(f"added around the container         {statistics.median(added):.2f} s  (target <= 2 s)   rounds: {[round(a, 2) for a in added]}")
