"""Says in which parts two images differ: partition table, parts of the unified kernel image, files of the root file system."""

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from .builder import Builder
from .common import Failure, scratch, sha256_of
from .disk import ROOT_NAME

_SECTOR, _BLOCK, _MIB = 512, 4096, 1 << 20
_UKI = "EFI/BOOT/BOOTX64.EFI"
_TEXTS = (".osrel", ".uname", ".cmdline")
_MOST_FILES = 100
"""So many files are named; more are counted."""


class Disk:
    """An image and its partitions."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        with open(path, "rb") as file:
            self.table = file.read(_MIB)
            file.seek(max(0, self.size - _SECTOR))
            trailer = file.read(_SECTOR)
        if trailer.startswith(b"conectix"):
            raise Failure(f"{path} is a VHD: compare raw images")
        if self.table[512:520] != b"EFI PART":
            raise Failure(f"{path} has no partition table (GPT): only raw images can be compared")
        entries, count, length = struct.unpack_from("<QII", self.table, 512 + 72)
        self.partitions: dict[str, tuple[int, int]] = {}
        for index in range(min(count, 128)):
            entry = self.table[entries * _SECTOR + index * length:][:128]
            if len(entry) == 128 and entry[:16] != bytes(16):
                first, last = struct.unpack_from("<QQ", entry, 32)
                name = entry[56:].decode("utf-16-le", errors="replace").rstrip("\0")
                if not first <= last < self.size // _SECTOR:
                    raise Failure(f"the partition {name!r} of {path} is not on the disk")
                self.partitions[name] = (first * _SECTOR, (last + 1 - first) * _SECTOR)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the image."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)


def compare(one: Path, two: Path, builder: Builder, cache: Path) -> list[str]:
    """The differences between two images, in words; none if they are the same."""
    if one.stat().st_size == two.stat().st_size and sha256_of(one) == sha256_of(two):
        return []
    disks = Disk(one), Disk(two)
    found = []
    if disks[0].size != disks[1].size:
        found.append(f"size: {disks[0].size} and {disks[1].size} bytes")
    if disks[0].table != disks[1].table:
        tables = [_partitions(disk) for disk in disks]
        found.append(f"partition table: {tables[0]} and {tables[1]}" if tables[0] != tables[1] else
                     "partition table: the same partitions, other identifiers")
    with scratch(cache / "base", ".compare-") as work:
        ukis = [_extract_uki(disk, builder, work / str(index)) for index, disk in enumerate(disks)]
        found += _ukis(*ukis)
        found += _roots(disks, builder, work)
    if not found:
        found.append(f"somewhere else: first at byte {_first_difference(*disks)}")
    return found


def _partitions(disk: Disk) -> str:
    return ", ".join(f"{name} of {length} bytes at {start}" for name, (start, length) in disk.partitions.items())


def _first_difference(one: Disk, two: Disk) -> int:
    for offset in range(0, min(one.size, two.size), _MIB):
        left, right = one.read(offset, _MIB), two.read(offset, _MIB)
        if left != right:
            return offset + next((index for index, pair in enumerate(zip(left, right)) if pair[0] != pair[1]),
                                 min(len(left), len(right)))
    return min(one.size, two.size)


def _extract_uki(disk: Disk, builder: Builder, folder: Path) -> bytes:
    folder.mkdir()
    if not disk.partitions:
        raise Failure(f"{disk.path} has no partition")
    start, length = next(iter(disk.partitions.values()))
    (folder / "esp").write_bytes(disk.read(start, length))
    builder.run("mcopy", "-i", "/work/esp", f"::{_UKI}", "/work/uki", binds={"/work": folder}, writable=("/work",))
    (folder / "esp").unlink()
    return (folder / "uki").read_bytes()


def sections(image: bytes) -> dict[str, bytes]:
    """The sections of a PE file; what is before them is its header (Microsoft, "PE Format")."""
    try:
        header = struct.unpack_from("<I", image, 0x3C)[0]
        count, optional = struct.unpack_from("<H12xH", image, header + 6)
        table = header + 24 + optional
        found = {"header": image[:table]}
        for index in range(count):
            name, virtual, _, stored, place = struct.unpack_from("<8sIIII", image, table + 40 * index)
            found[name.rstrip(b"\0").decode(errors="replace")] = image[place:place + min(virtual, stored)]
    except struct.error as error:
        raise Failure(f"the unified kernel image is no PE file: {error}") from error
    return found


def _ukis(one: bytes, two: bytes) -> Iterator[str]:
    if one == two:
        return
    left, right = sections(one), sections(two)
    for name in dict.fromkeys([*left, *right]):
        if name not in left or name not in right:
            yield f"UKI section {name}: only in {'the first' if name in left else 'the second'}"
        elif left[name] != right[name]:
            if name in _TEXTS:
                yield f"UKI section {name}: {_text(left[name])} and {_text(right[name])}"
            elif name == ".initrd":
                yield from _initrds(left[name], right[name])
            else:
                yield f"UKI section {name}: {len(left[name])} and {len(right[name])} bytes, other contents"


def _text(content: bytes) -> str:
    return repr(content.rstrip(b"\0").decode(errors="replace"))


def _initrds(one: bytes, two: bytes) -> Iterator[str]:
    left, right = dict(_entries(one)), dict(_entries(two))
    named = [f"UKI section .initrd, /{name}: {_how(name in left, name in right)}"
             for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
    yield from named or ["UKI section .initrd: other contents"]


def _how(first: bool, second: bool) -> str:
    return "other contents" if first and second else f"only in the {'first' if first else 'second'}"


def _entries(archive: bytes) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """What is in a cpio archive, as far as it is one."""
    at = 0
    while archive[at:at + 6] == b"070701":
        try:
            fields = [int(archive[at + 6 + 8 * index:at + 14 + 8 * index], 16) for index in range(13)]
        except ValueError:
            return
        name = archive[at + 110:at + 109 + fields[11]].decode(errors="replace")
        start = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return
        yield name, (fields[1], archive[start:start + fields[6]])
        at = (start + fields[6] + 3) & ~3


def _roots(disks: tuple[Disk, Disk], builder: Builder, work: Path) -> list[str]:
    places = [disk.partitions.get(ROOT_NAME) for disk in disks]
    if not all(places):
        return [f"only one has the partition {ROOT_NAME}"] if any(places) else []
    contents = [disk.read(*place) for disk, place in zip(disks, places)]
    if contents[0] == contents[1]:
        return []
    listings = []
    for index, content in enumerate(contents):
        folder = work / f"root{index}"
        folder.mkdir()
        (folder / "image").write_bytes(content)
        builder.run("unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", "/work/tree", "/work/image",
                    binds={"/work": folder}, writable=("/work",))
        listings.append(dict(_listing(folder / "tree")))
    left, right = listings
    named = [f"root file system, {name}: {_what(left.get(name), right.get(name))}"
             for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
    if len(named) > _MOST_FILES:
        named[_MOST_FILES:] = [f"root file system: {len(named) - _MOST_FILES} more files"]
    return named or ["root file system: the same files, packed otherwise, or another hash tree"]


def _listing(folder: Path) -> Iterator[tuple[str, str]]:
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            status = path.lstat()
            shown = "/" + str(path.relative_to(folder))
            if stat.S_ISLNK(status.st_mode):
                yield shown, f"link to {os.readlink(path)}"
            elif stat.S_ISREG(status.st_mode):
                yield shown, f"file with mode {stat.S_IMODE(status.st_mode):o}, {status.st_size} bytes, sha256:{sha256_of(path)}"
            else:
                yield shown, f"folder with mode {stat.S_IMODE(status.st_mode):o}"


def _what(left: str | None, right: str | None) -> str:
    if left and right:
        return f"{left} and {right}"
    return f"only in the first ({left})" if left else f"only in the second ({right})"
