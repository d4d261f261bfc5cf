"""Asks apt which packages are to be installed: in a root of its own, on a machine that has none yet."""

import os
import re
import subprocess
import urllib.parse
from pathlib import Path

from .common import Failure
from .locks import Package
from .mirrors import Mirrors

_SUITE = "bookworm"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Solver:
    """apt with the lists of the newest packages; its signatures are checked with Debian's keys."""

    def __init__(self, mirrors: Mirrors, folder: Path):
        if not Path(_KEYRING).is_file():
            raise Failure("Debian's archive keys are not installed", "sudo apt-get install debian-archive-keyring", 3)
        self.urls = mirrors.urls
        self.folder = folder
        for name in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d",
                     "state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "state/status").write_text("")
        sources = [f"deb [signed-by={_KEYRING}] {mirrors.urls['debian']} {_SUITE} main",
                   f"deb [signed-by={_KEYRING}] {mirrors.urls['debian']} {_SUITE}-updates main",
                   f"deb [signed-by={_KEYRING}] {mirrors.urls['debian-security']} {_SUITE}-security main"]
        (folder / "etc/sources.list").write_text("\n".join(sources) + "\n")
        self._apt("apt-get", "update", "-qq")

    def install(self, names: list[str]) -> list[Package]:
        """What must be installed for these packages."""
        answer = self._apt("apt-get", "-qq", "--print-uris", "--no-install-recommends", "install", *names)
        # Lines are: 'address' file-name size hash.
        wanted = re.findall(r"^'([^']+)' (\S+) \d+ ", answer, re.M)
        if not wanted:
            raise Failure(f"apt names no package for {' '.join(names)}")
        files = [name.split("_") for _, name in wanted]
        return self.described([f"{name}={urllib.parse.unquote(version)}" for name, version, *_ in files])

    def described(self, versions: list[str]) -> list[Package]:
        """Packages in these versions (`name=version`), as the signed lists describe them."""
        answer = self._apt("apt-cache", "show", "--no-all-versions", *versions)
        archives = self._archives(versions)
        packages = {}
        for paragraph in answer.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Za-z0-9-]+: ", line))
            try:
                name = fields["Package"]
                packages[name] = Package(name, fields["Version"], archives[name], fields["Filename"].removeprefix("./"),
                                         int(fields["Size"]), fields["SHA256"])
            except KeyError as error:
                raise Failure(f"the lists of apt do not say everything about {fields.get('Package')}: {error}") from error
        for version in versions:
            name, number = version.split("=", 1)
            if name not in packages or packages[name].version != number:
                raise Failure(f"apt does not describe {version}")
        return list(packages.values())

    def _archives(self, versions: list[str]) -> dict[str, str]:
        """By package: the archive that apt would take it from."""
        answer = self._apt("apt-get", "--print-uris", "-qq", "download", *versions)
        archives = {}
        for url, name in re.findall(r"^'([^']+)' ([^_ ]+)_", answer, re.M):
            matching = [archive for archive, prefix in self.urls.items() if url.startswith(prefix + "/")]
            if matching:
                archives[name] = max(matching, key=lambda archive: len(self.urls[archive]))
        return archives

    def _apt(self, program: str, *arguments: str) -> str:
        folder = self.folder
        options = {
            "Dir::Etc": folder / "etc", "Dir::Etc::parts": folder / "etc/apt.conf.d",
            "Dir::Etc::trustedparts": folder / "etc/trusted.gpg.d",
            "Dir::State": folder / "state", "Dir::State::status": folder / "state/status",
            "Dir::Cache": folder / "cache", "APT::Architecture": "amd64", "APT::Architectures": "amd64",
            "APT::Sandbox::User": "", "Acquire::Languages": "none",
        }
        command = [program, *(f"-o{name}={value}" for name, value in options.items()), *arguments]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                                  env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **_proxies()})
        except FileNotFoundError as error:
            raise Failure(f"{program} is not installed; locks are written on Debian and Ubuntu", "", 3) from error
        if done.returncode != 0:
            raise Failure(f"{program} {arguments[0]} failed:\n{done.stderr.strip()}",
                          "see whether the mirrors answer; others can be named with --mirror and --security-mirror")
        return done.stdout


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}

