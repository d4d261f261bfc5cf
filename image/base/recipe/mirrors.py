"""Fetches packages: from the archives that this machine is configured for, or from mirrors that the builder names.

A mirror is not trusted. A package is what the lock says, byte for byte, or it is not opened.
"""

import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .common import Failure, say, sha256_of, size
from .locks import Package

_LABELS = {"debian": "Debian", "debian-security": "Debian-Security"}
_DEFAULTS = {
    "debian": "http://deb.debian.org/debian",
    "debian-security": "http://deb.debian.org/debian-security",
}
_AT_ONCE = 4
_PATIENCE = 60


def configured(archive: str) -> str:
    """The mirror that apt on this machine takes an archive's packages from, whatever release it is."""
    try:
        answer = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    except FileNotFoundError:
        answer = ""  # no apt here, so nothing is configured
    label = _LABELS[archive] + " "
    found = sorted(line[len(label):] for line in answer.splitlines() if line.startswith(label))
    return found[0] if found else _DEFAULTS[archive]


def _apt_proxies() -> dict[str, str]:
    """The proxies that apt is told to use, where the environment names none."""
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        try:
            answer = subprocess.run(["apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy"],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
        except FileNotFoundError:
            break
        value = answer.strip().removeprefix("proxy=").strip("'")
        if value and value != "DIRECT":
            proxies.setdefault(scheme, value)
    return proxies


@dataclass
class Mirrors:
    """Where each archive is, and where fetched packages are kept."""

    urls: dict[str, str]
    folder: Path

    @staticmethod
    def choose(debian: str | None, security: str | None, nvidia: str | None, cache: Path) -> "Mirrors":
        """Takes what the builder named, and what is configured for the rest."""
        urls = {"debian": debian or configured("debian"),
                "debian-security": security or configured("debian-security")}
        if nvidia:
            urls["nvidia"] = nvidia
        for archive, url in urls.items():
            if urllib.parse.urlsplit(url).scheme not in ("http", "https", "file"):
                raise Failure(f"the mirror of {archive} is {url}, and packages are fetched by http, https or file",
                              "name another with --mirror, --security-mirror or --nvidia-repository")
        return Mirrors({archive: url.rstrip("/") for archive, url in urls.items()}, cache / "packages")

    def file_of(self, package: Package) -> Path:
        """Where a package is kept."""
        return self.folder / f"{package.sha256}.deb"

    def fetch(self, packages: list[Package], lock: Path, date: str) -> None:
        """Sees to it that all packages are there and are the right ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [package for package in packages if not self._is_there(package)]
        if missing:
            total = sum(package.size for package in missing)
            say("packages", f"fetching {len(missing)} of {lock.name}, {size(total)}")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler(_apt_proxies()))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                faults = [fault for fault in pool.map(lambda package: self._download(package, opener), missing) if fault]
            if faults:
                raise Failure(
                    "\n  ".join([f"packages of {lock} could not be fetched:", *faults]),
                    "Debian removes a package from its mirrors when another replaces it. Build what the lock says from\n"
                    f"  --mirror https://snapshot.debian.org/archive/debian/{date}T235959Z\n"
                    f"  --security-mirror https://snapshot.debian.org/archive/debian-security/{date}T235959Z\n"
                    "or lock the present packages, which makes another image: image/base/lock")
        say("packages", f"{len(packages)} of {lock.name} are here and have the right hashes")

    def _is_there(self, package: Package) -> bool:
        path = self.file_of(package)
        return path.is_file() and path.stat().st_size == package.size and sha256_of(path) == package.sha256

    def _download(self, package: Package, opener) -> str | None:
        """Fetches one package; returns what is wrong."""
        url = f"{self.urls[package.archive]}/{urllib.parse.quote(package.path)}" \
            if package.archive in self.urls else None
        if url is None:
            return f"{package}: no repository was named for the archive {package.archive}"
        partial = self.folder / f".{package.sha256}.{os.getpid()}"
        try:
            with opener.open(url, timeout=_PATIENCE) as answer, open(partial, "wb") as file:
                left = package.size
                # One byte more than there should be shows that it is not the package.
                while block := answer.read(min(1 << 20, left + 1)):
                    left -= len(block)
                    if left < 0:
                        return f"{package}: {url} has more than the {package.size} bytes that it should have"
                    file.write(block)
            if left > 0:
                return f"{package}: {url} has {package.size - left} bytes, expected {package.size}"
            found = sha256_of(partial)
            if found != package.sha256:
                return f"{package}: {url} has SHA-256 {found}, expected {package.sha256}"
            partial.rename(self.file_of(package))
            return None
        except urllib.error.HTTPError as error:
            gone = " (the mirror does not have it)" if error.code in (404, 410) else ""
            return f"{package}: {url}: HTTP status {error.code}{gone}"
        except (OSError, ValueError) as error:
            return f"{package}: {url}: {getattr(error, 'reason', error)}"
        finally:
            partial.unlink(missing_ok=True)
