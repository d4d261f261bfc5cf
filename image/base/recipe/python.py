"""The Python base container image that travels in the base image, so that a job needs no registry.

It is built by `image/python/build`, in the builder, from a repository that holds the locked packages and nothing else.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .builder import Builder
from .common import BASE, forget, locked, made_once, say, scratch, sha256_of, sha256_of_text, tool
from .locks import Package
from .mirrors import Mirrors

NAME = "python-3.11.tar"
_SUITE = "bookworm"
_RECIPE = BASE.parent / "python/build"


@dataclass(frozen=True)
class Container:
    """The container image."""

    archive: Path
    """What `docker load` takes."""
    packages: list[Package]
    """What it was made of."""


def build(packages: list[Package], mirrors: Mirrors, builder: Builder, cache: Path) -> Container:
    """Builds the archive for `docker load`, unless it is there from an earlier build."""
    key = sha256_of_text("python 1", builder.key, sha256_of(_RECIPE), *(package.line() for package in packages))
    parent = cache / "base/python"
    with locked(cache / "base/python.lock"):
        forget(parent, 3)

    def make(folder: Path) -> None:
        say("python", "building the Python container image")
        with scratch(cache / "base", ".python-") as work:
            repository = work / "repository"
            _make_repository(packages, mirrors, repository)
            (repository / "lock").write_text("".join(f"{line}\n" for line in sorted(map(_version, packages))))
            builder.run("/input/build", "--suite", _SUITE, "--repository", "/packages", "--lock", "/packages/lock",
                        "--output", f"/work/{NAME}",
                        binds={"/input": _RECIPE.parent, "/packages": repository, "/work": folder},
                        writable=("/work",), ids=True)

    return Container(made_once(parent / key[:32], make) / NAME, packages)


def _make_repository(packages: list[Package], mirrors: Mirrors, folder: Path) -> None:
    """A flat repository of these packages; apt is told to believe it, because every file was checked before."""
    folder.mkdir()
    paragraphs = []
    for package in packages:
        archive = mirrors.file_of(package)
        name = f"{package.sha256}.deb"
        _link_or_copy(archive, folder / name)
        control = subprocess.run([tool("dpkg-deb", "dpkg"), "--field", archive], stdout=subprocess.PIPE, text=True, check=True)
        paragraphs.append(f"{control.stdout.strip()}\nFilename: ./{name}\nSize: {package.size}\nSHA256: {package.sha256}\n")
    index = folder / "Packages"
    index.write_text("\n".join(paragraphs))
    # mmdebstrap chooses the essential packages of a suite, so the repository says that it is one.
    (folder / "Release").write_text(f"Suite: {_SUITE}\nCodename: {_SUITE}\nDate: Tue, 01 Jan 1980 00:00:00 UTC\n"
                                    f"SHA256:\n {sha256_of(index)} {index.stat().st_size} Packages\n")


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except OSError:  # on another file system, or on one that has no hard links
        shutil.copyfile(file, target)


def _version(package: Package) -> str:
    """The line that `image/python/build` writes about a package."""
    return f"{package.name}={package.version} sha256:{package.sha256}"
