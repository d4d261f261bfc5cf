"""Lists of packages: what is asked for, and the lock that says which packages these are, byte for byte."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .common import Failure

ARCHIVES = ("debian", "debian-security", "nvidia")
"""The archives that packages come from; where each is, the builder says (`mirrors.py`)."""

_FIELDS = (
    ("name", re.compile(r"[a-z0-9][a-z0-9.+-]{1,99}")),
    ("version", re.compile(r"[0-9A-Za-z.+~:-]{1,99}")),
    ("archive", re.compile("|".join(ARCHIVES))),
    ("path", re.compile(r"(\./)?([A-Za-z0-9_+~%:-][A-Za-z0-9_.+~%:-]*/)*[A-Za-z0-9_+~%:-][A-Za-z0-9_.+~%:-]*\.deb")),
    ("size", re.compile(r"[1-9][0-9]{0,9}")),
    ("sha256", re.compile(r"[0-9a-f]{64}")),
)


@dataclass(frozen=True)
class Package:
    """One package of a lock."""

    name: str
    version: str
    archive: str
    path: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def line(self) -> str:
        """It, in a lock."""
        return f"{self.name} {self.version} {self.archive} {self.path} {self.size} {self.sha256}"


def read_lock(path: Path) -> list[Package]:
    """Reads a lock."""
    packages: dict[str, Package] = {}
    for number, line in _lines(path):
        fields = line.split(" ")
        for (name, form), value in zip(_FIELDS, fields):
            if not form.fullmatch(value):
                raise Failure(f"{path}:{number}: {value!r} is no {name}")
        if len(fields) != len(_FIELDS):
            raise Failure(f"{path}:{number}: expected `name version archive path size sha256`, found {line!r}")
        package = Package(*fields[:4], int(fields[4]), fields[5])
        if package.name in packages:
            raise Failure(f"{path}:{number}: there are two packages {package.name}")
        packages[package.name] = package
    if not packages:
        raise Failure(f"{path} names no package", "`image/base/lock` writes it")
    return sorted(packages.values(), key=lambda package: package.name)


def write_lock(path: Path, packages: list[Package], date: str) -> None:
    """Writes a lock; `date` is the day on which the archives had all of them."""
    lines = [
        f"# Written by image/base/lock on {date}; change what is asked for instead.",
        "# name version archive path size sha256",
        *(package.line() for package in sorted(packages, key=lambda package: package.name)),
    ]
    path.write_text("\n".join(lines) + "\n")


def lock_date(path: Path) -> str:
    """The day on which a lock was written, as YYYYMMDD."""
    found = re.search(r"on (\d{4})-(\d{2})-(\d{2})", path.read_text().split("\n", 1)[0])
    return "".join(found.groups()) if found else "YYYYMMDD"


@dataclass(frozen=True)
class Wanted:
    """A line of a list of packages: the package, and which of its files."""

    name: str
    files: tuple[str, ...]
    where: str

    @property
    def is_pattern(self) -> bool:
        """Whether the name stands for one that the lock knows, such as that of the newest kernel."""
        return "*" in self.name

    def of(self, packages: list[Package]) -> Package:
        """The package that is meant."""
        found = [package for package in packages if fnmatchcase(package.name, self.name)]
        if len(found) != 1:
            names = ", ".join(package.name for package in found) or "none"
            raise Failure(f"{self.where}: exactly one package of the lock must be a {self.name}; found {names}",
                          "update the lock with `image/base/lock`")
        return found[0]


def read_wanted(path: Path) -> dict[str, list[Wanted]]:
    """Reads a list of packages: sections in brackets, and in each lines with a package and patterns of file names."""
    sections: dict[str, list[Wanted]] = {}
    section = None
    for number, line in _lines(path):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
            continue
        if section is None:
            raise Failure(f"{path}:{number}: a section in brackets must come first")
        name, *files = line.split()
        section.append(Wanted(name, tuple(files), f"{path}:{number}"))
    return sections


def _lines(path: Path):
    """The lines that say something."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if line:
            yield number, line
