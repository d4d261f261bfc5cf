"""What is read from ELF files: the libraries and versions that a program needs, and what a kernel module says of itself.

System V ABI, chapters 4 and 5; Linux Standard Base Core Specification 5.0, section 10.7 (symbol versions).
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

from .common import Failure

_DYNAMIC, _VERDEF, _VERNEED = 6, 0x6FFFFFFD, 0x6FFFFFFE
_NEEDED, _RPATH, _RUNPATH = 1, 15, 29
_INTERP = 3


@dataclass
class Elf:
    """What an ELF file needs and offers."""

    interpreter: str = ""
    needed: list[str] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    """RPATH and RUNPATH."""
    needed_versions: dict[str, set[str]] = field(default_factory=dict)
    """By library: the versions of symbols that it must have."""
    versions: set[str] = field(default_factory=set)
    """The versions of symbols that this library has."""


class _File:
    """A 64-bit little-endian ELF file and its section table."""

    def __init__(self, path: Path, data: bytes):
        self.path, self.data = path, data
        if data[4:6] != b"\x02\x01":
            raise Failure(f"{path} is an ELF file, but not for a 64-bit little-endian machine")
        try:
            (self.program_headers, section_headers) = struct.unpack_from("<QQ", data, 32)
            (self.program_size, self.program_count, section_size, count, names) = struct.unpack_from("<5H", data, 54)
            self.sections = [struct.unpack_from("<IIQQQQIIQQ", data, section_headers + index * section_size)
                             for index in range(count)]
            self.names = names
        except (struct.error, OverflowError) as error:
            raise Failure(f"{path} is a broken ELF file: {error}") from error

    def content(self, section) -> bytes:
        return self.data[section[4]:section[4] + section[5]]

    def strings_of(self, section):
        """Reads names from the string table that belongs to a section."""
        table = self.content(self.sections[section[6]])
        return lambda offset: text_at(table, offset)


def text_at(table: bytes, offset: int) -> str:
    """The text in a string table."""
    return table[offset:table.index(b"\0", offset)].decode()


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF file."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def read(path: Path) -> Elf:
    """Reads what an ELF file needs and offers."""
    file = _File(path, path.read_bytes())
    elf = Elf()
    try:
        for index in range(file.program_count):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", file.data,
                                                               file.program_headers + index * file.program_size)
            if kind == _INTERP:
                elf.interpreter = file.data[offset:offset + length].rstrip(b"\0").decode()
        for section in file.sections:
            if section[1] == _DYNAMIC:
                _dynamic(file, section, elf)
            elif section[1] == _VERNEED:
                _verneed(file, section, elf)
            elif section[1] == _VERDEF:
                _verdef(file, section, elf)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise Failure(f"{path} is a broken ELF file: {error}") from error
    return elf


def _dynamic(file: _File, section, elf: Elf) -> None:
    name = file.strings_of(section)
    for tag, value in struct.iter_unpack("<qQ", file.content(section)):
        if tag == 0:
            break
        if tag == _NEEDED:
            elf.needed.append(name(value))
        elif tag in (_RPATH, _RUNPATH):
            elf.search += name(value).split(":")


def _verneed(file: _File, section, elf: Elf) -> None:
    name, data, offset = file.strings_of(section), file.content(section), 0
    for _ in range(section[7]):
        _, count, library, first, following = struct.unpack_from("<HHIII", data, offset)
        versions = elf.needed_versions.setdefault(name(library), set())
        at = offset + first
        for _ in range(count):
            _, flags, _, version, after = struct.unpack_from("<IHHII", data, at)
            if not flags & 2:  # VER_FLG_WEAK
                versions.add(name(version))
            at += after
        offset += following


def _verdef(file: _File, section, elf: Elf) -> None:
    name, data, offset = file.strings_of(section), file.content(section), 0
    for _ in range(section[7]):
        _, _, _, _, _, first, following = struct.unpack_from("<HHHHIII", data, offset)
        elf.versions.add(name(struct.unpack_from("<I", data, offset + first)[0]))
        offset += following


def module_info(path: Path) -> dict[str, list[str]]:
    """What a kernel module says of itself (its section `.modinfo`)."""
    file = _File(path, path.read_bytes())
    try:
        names = file.content(file.sections[file.names])
        found = [section for section in file.sections if text_at(names, section[0]) == ".modinfo"]
    except (ValueError, IndexError) as error:
        raise Failure(f"{path} is a broken ELF file: {error}") from error
    if not found:
        raise Failure(f"{path} is no kernel module")
    info: dict[str, list[str]] = {}
    for line in file.content(found[0]).split(b"\0"):
        if line:
            key, _, value = line.decode(errors="replace").partition("=")
            info.setdefault(key, []).append(value)
    return info
