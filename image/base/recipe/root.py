"""Puts the root file system together: what `packages` names, the libraries that this needs, aicert's programs, fixed files."""

import json
import os
import shutil
from pathlib import Path, PurePosixPath

from . import elf
from .common import BASE, Failure
from .locks import Package, Wanted
from .modules import Modules
from .programs import Source
from .unpack import Unpacked

_MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp", "var")
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/lib64")
"""Where the dynamic loader looks."""

CERTIFICATES = "/usr/share/ca-certificates/"


class Tree:
    """A file system to be: folders as they are needed, files and links; everything belongs to root."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()

    def path(self, name: str) -> Path:
        """Where a file of the tree is while it is built."""
        return self.folder / name.lstrip("/")

    def add(self, name: str, source: Path) -> None:
        """Copies a file or link; programs stay programs, and no file is writable or setuid."""
        path = self._new(name)
        if source.is_symlink():
            path.symlink_to(os.readlink(source))
        elif source.is_file():
            shutil.copyfile(source, path)
            path.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)
        else:
            raise Failure(f"{source} is neither a file nor a link")

    def add_text(self, name: str, text: str) -> None:
        """Writes a file."""
        path = self._new(name)
        path.write_text(text)
        path.chmod(0o644)

    def add_folder(self, name: str) -> None:
        """Makes a folder."""
        for parent in reversed((PurePosixPath(name), *PurePosixPath(name).parents)):
            path = self.path(str(parent))
            if not path.is_dir():
                path.mkdir()
                path.chmod(0o755)

    def _new(self, name: str) -> Path:
        if name in self.names:
            raise Failure(f"{name} comes to the root file system from two places")
        self.names.add(name)
        self.add_folder(str(PurePosixPath(name).parent))
        return self.path(name)


class Root:
    """The root file system while it is put together, and what was taken from which package."""

    def __init__(self, folder: Path, unpacked: Unpacked):
        self.tree = Tree(folder)
        self.unpacked = unpacked
        self.used: set[Package] = set()
        for name in ("bin", "sbin", "lib", "lib64"):
            self.tree.add_folder(f"/usr/{name}")
            self.tree.path(name).symlink_to(f"usr/{name}")
        for name in _MOUNT_POINTS:
            self.tree.add_folder(f"/{name}")

    def add_packages(self, wanted: list[Wanted]) -> None:
        """Takes from packages what the list names."""
        certificates = []
        for line in wanted:
            if line.is_pattern or line.files:
                package = line.of(self.unpacked.packages)
                for name, path in self.unpacked.matching(package, line.files, line.where).items():
                    if name.startswith(CERTIFICATES):
                        certificates.append(path)
                        self.used.add(package)
                    else:
                        self._take(name, package)
        if certificates:
            self.tree.add_text("/etc/ssl/certs/ca-certificates.crt", _bundle(certificates))

    def add_from_anywhere(self, wanted: list[Wanted]) -> list[str]:
        """Takes files from whichever package has them. Returns the kernel modules among them, which are not taken yet."""
        modules = []
        for line in wanted:
            for name, package in self.unpacked.everywhere(line.files, line.where).items():
                if name.endswith(".ko"):
                    modules.append(name)
                elif name not in self.tree.names:
                    self._take(name, package)
        return modules

    def add_modules(self, modules: Modules) -> None:
        """Takes the kernel modules that are loaded from here, and says in which order."""
        folder = f"/usr/lib/modules/{modules.release}"
        for name in modules.root:
            self._take(f"{folder}/{name}", self.unpacked.owner[f"{folder}/{name}"])
        self.tree.add_text("/usr/lib/aicert/modules", "".join(f"{folder}/{name}\n" for name in modules.root))

    def add_fixed(self, source: Source) -> None:
        """Takes the files that the recipe brings: of its own checkout what git would have of them, as of all that is built
        from it. A recipe elsewhere makes images that say `-modified`, from what is there."""
        fixed = BASE / "root"
        paths = [source.folder / name for name in source.files()] if source.is_own else sorted(fixed.rglob("*"))
        for path in paths:
            if path.is_relative_to(fixed) and (path.is_symlink() or path.is_file()):
                self.tree.add("/" + str(path.relative_to(fixed)), path)

    def add_all_libraries(self, package: Package) -> None:
        """Takes every library of a package, needed or not."""
        for name in self.unpacked.files[package]:
            if name.startswith(f"{_LIBRARIES[0]}/") and ".so." in name and name not in self.tree.names:
                self._take(name, package)

    def add_libraries(self) -> None:
        """Takes the libraries that programs and other libraries need, and the loader."""
        pending = sorted(name for name in self.tree.names if not self.tree.path(name).is_symlink())
        while pending:
            path = self.tree.path(pending.pop())
            if not elf.is_elf(path) or path.suffix == ".ko":
                continue
            found = elf.read(path)
            needed = [self._find(library, found.search, path) for library in found.needed]
            if found.interpreter:
                needed.append(_merged(found.interpreter))
            for name in needed:
                pending += self._take_library(name, path)

    def add_licences(self) -> None:
        """Takes the copyright file of every package that something was taken from."""
        for package in sorted(self.used, key=lambda package: package.name):
            name = f"/usr/share/doc/{package.name}/copyright"
            if name in self.unpacked.files[package]:
                self._take(name, package)

    def add_statements(self, release: dict, packages: list[Package]) -> str:
        """Says what the image is, and what it was made of."""
        self.tree.add_text("/usr/share/aicert/release.json", json.dumps(release, indent=2) + "\n")
        # The Python image has its own copies of packages; where they are of the same version, one line is enough.
        lines = sorted({f"{package.name}={package.version} sha256:{package.sha256}\n" for package in packages})
        self.tree.add_text("/usr/share/aicert/packages.txt", "".join(lines))
        return "".join(lines)

    def _find(self, library: str, search: list[str], user: Path) -> str:
        for folder in (*(place for place in search if place.startswith("/")), *_LIBRARIES):
            if self.unpacked.file(f"{_merged(folder)}/{library}"):
                return f"{_merged(folder)}/{library}"
        raise Failure(f"no package of the lock has {library}, which {user.name} needs",
                      "name the package that has it in image/base/packages, and run image/base/lock")

    def _take_library(self, name: str, user: Path) -> list[str]:
        """Takes a library and, if it is a link, what it points to; returns what is new."""
        new = []
        while name not in self.tree.names:
            source = self.unpacked.file(name)
            if not source:
                raise Failure(f"no package of the lock has {name}, which {user.name} needs")
            self._take(name, self.unpacked.owner[name])
            new.append(name)
            if not source.is_symlink():
                break
            name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(source)))
            name = _merged(name)
        return [name for name in new if not self.tree.path(name).is_symlink()]

    def _take(self, name: str, package: Package) -> None:
        self.tree.add(name, self.unpacked.files[package][name])
        self.used.add(package)


def _merged(name: str) -> str:
    """A path, with / merged with /usr."""
    return f"/usr{name}" if name.startswith(("/lib/", "/lib64/", "/bin/", "/sbin/")) else name


def _bundle(certificates: list[Path]) -> str:
    """All certificates in one file, as update-ca-certificates does."""
    texts = []
    for path in sorted(certificates, key=lambda path: path.name):
        text = path.read_text()
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise Failure(f"{path} is no certificate")
        texts.append(text if text.endswith("\n") else text + "\n")
    return "".join(texts)
