"""Writes a list of packages with the hashes of all files of their versions, from what pip has resolved."""

import json
import sys
import urllib.parse

import requests
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename


def version_of(filename):
    """The version that a file is of; nothing for forms that pip installs no more."""
    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[1])
        return str(parse_sdist_filename(filename)[1])
    except ValueError:
        return None


def hashes(index, name, version):
    """Those of wheels; of sources where there are no wheels."""
    url = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
    answer = requests.get(url, headers={"Accept": "application/vnd.pypi.simple.v1+json"}, timeout=60)
    answer.raise_for_status()
    files = [file for file in answer.json()["files"] if version_of(file["filename"]) == version]
    wheels = [file for file in files if file["filename"].endswith(".whl")]
    # Tests run on Linux.
    wheels = [file for file in wheels if file["filename"].endswith("-any.whl") or "linux" in file["filename"]]
    return sorted(file["hashes"]["sha256"] for file in wheels or files)


def index_of_pip():
    import subprocess

    said = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True)
    return said.stdout.strip() or "https://pypi.org/simple"


def main(report, before):
    for line in open(before, encoding="utf-8"):
        if line.startswith("#"):
            print(line, end="")
    index = index_of_pip()
    with open(report, encoding="utf-8") as file:
        installed = json.load(file)["install"]
    for package in sorted(installed, key=lambda package: canonicalize_name(package["metadata"]["name"])):
        name, version = canonicalize_name(package["metadata"]["name"]), package["metadata"]["version"]
        print(f"{name}=={urllib.parse.unquote(version)}", end="")
        for digest in hashes(index, name, version):
            print(f" \\\n    --hash=sha256:{digest}", end="")
        print()


main(*sys.argv[1:])
