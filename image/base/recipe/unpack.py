"""Unpacks packages, each into a folder of its own, and finds files in them."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from .common import Failure, forget, locked, made_once, sha256_of_text, tool
from .locks import Package
from .mirrors import Mirrors

_MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders that are links into /usr in the image, and not yet in the packages of this release."""


def unpack_archive(archive: Path, folder: Path) -> None:
    """Unpacks a package into a folder that may have things in it, without owners and setuid bits; runs none of its scripts."""
    dpkg = subprocess.Popen([tool("dpkg-deb", "dpkg"), "--fsys-tarfile", archive], stdout=subprocess.PIPE)
    tar = subprocess.run(["tar", "--extract", "--directory", folder, "--keep-directory-symlink", "--no-same-owner",
                          "--no-same-permissions", "--delay-directory-restore"], stdin=dpkg.stdout, check=False,
                         umask=0o022)
    dpkg.stdout.close()
    if dpkg.wait() != 0 or tar.returncode != 0:
        raise Failure(f"{archive} could not be unpacked")


def merge_usr(folder: Path) -> None:
    """Makes the links that merge / with /usr."""
    for name in _MERGED:
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")


class Unpacked:
    """The packages of a lock, unpacked; paths are those of a system whose / is merged with /usr."""

    def __init__(self, packages: list[Package], mirrors: Mirrors, cache: Path):
        def make(parent: Path) -> None:
            def one(package: Package) -> None:
                (parent / package.sha256).mkdir()
                unpack_archive(mirrors.file_of(package), parent / package.sha256)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(one, packages))

        parent = cache / "base/unpacked"
        with locked(cache / "base/unpacked.lock"):
            forget(parent, 3)
        key = sha256_of_text("unpacked 1", *(package.sha256 for package in packages))
        parent = made_once(parent / key[:32], make)
        self.packages = packages
        self.files: dict[Package, dict[str, Path]] = {}
        self.owner: dict[str, Package] = {}
        for package in packages:
            folder, files = parent / package.sha256, {}
            self.files[package] = files
            for path in sorted(_files_in(folder)):
                name = _merged(path.relative_to(folder))
                files[name] = path
                self.owner.setdefault(name, package)

    def matching(self, package: Package, patterns: tuple[str, ...], where: str) -> dict[str, Path]:
        """The files of a package that patterns name; each must name one."""
        found = {}
        for pattern in patterns:
            matches = {name: path for name, path in self.files[package].items() if fnmatchcase(name, pattern)}
            if not matches:
                raise Failure(f"{where}: {package} has no file {pattern}")
            found.update(matches)
        return found

    def everywhere(self, patterns: tuple[str, ...], where: str) -> dict[str, Package]:
        """The files that patterns name, from whichever package; each must name one."""
        found = {}
        for pattern in patterns:
            matches = {name: package for name, package in self.owner.items() if fnmatchcase(name, pattern)}
            if not matches:
                raise Failure(f"{where}: no package has a file {pattern}")
            found.update(matches)
        return found

    def file(self, name: str) -> Path | None:
        """The file of this name, from whichever package."""
        package = self.owner.get(name)
        return self.files[package][name] if package else None


def _files_in(folder: Path):
    for parent, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            yield Path(parent, name)


def _merged(path: Path) -> str:
    parts = PurePosixPath(path).parts
    return "/" + "/".join(("usr", *parts) if parts[0] in _MERGED else parts)
