"""The file systems, and the disk that they are on."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .builder import Builder
from .common import Failure

_SECTOR, _BLOCK, _MIB = 512, 4096, 1 << 20
ROOT_NAME = "aicert-root"
"""The name of the partition that the initrd looks for."""

_DISK_ID = "6A1CE47B-A5E0-4D00-8000-000000000001"
_ESP_ID = "6A1CE47B-A5E0-4D00-8000-000000000002"
_ROOT_ID = "6A1CE47B-A5E0-4D00-8000-000000000003"
_VOLUME_ID = "A1CEB007"
_LINUX_DATA = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
"""A type that nothing mounts by itself."""


@dataclass(frozen=True)
class Verity:
    """How a root file system is verified: what the kernel command line says."""

    root_hash: str
    salt: str
    blocks: int

    def __str__(self) -> str:
        return f"{self.root_hash}:{self.salt}:{self.blocks}"


def squash(builder: Builder, folder: Path, work: Path) -> Path:
    """Makes the file system; in `work`."""
    # It refuses to be told the time twice.
    environment = {"SOURCE_DATE_EPOCH": None}
    builder.run(
        "mksquashfs", "/input", "/work/root", "-noappend", "-quiet", "-no-progress", "-no-xattrs", "-no-exports", "-all-root",
        "-comp", "zstd", "-Xcompression-level", "9", "-b", "131072", "-mkfs-time", "0", "-all-time", "0",
        binds={"/input": folder, "/work": work}, writable=("/work",), environment=environment)
    return work / "root"


def add_verity(builder: Builder, file_system: Path, work: Path) -> Verity:
    """Writes the hash tree right behind a file system.

    The salt follows from the contents. It need not be secret: it is there so that nobody can prepare colliding blocks
    for all images at once, and must not be chosen freely, or two builds would differ.
    """
    content = file_system.read_bytes()
    if len(content) % _BLOCK:
        raise Failure(f"mksquashfs made {len(content)} bytes, which is no multiple of {_BLOCK}")
    salt = hashlib.sha256(b"aicert/verity-salt/v1\0" + hashlib.sha256(content).digest()).hexdigest()
    blocks = len(content) // _BLOCK
    answer = builder.run(
        "veritysetup", "format", "--no-superblock", "--format=1", "--hash=sha256", f"--data-block-size={_BLOCK}",
        f"--hash-block-size={_BLOCK}", f"--salt={salt}", f"--data-blocks={blocks}", f"--hash-offset={len(content)}",
        f"/work/{file_system.name}", f"/work/{file_system.name}", binds={"/work": work}, writable=("/work",)).decode()
    found = re.search(r"Root hash:\s+([0-9a-f]{64})\s", answer)
    if not found:
        raise Failure(f"veritysetup says no root hash:\n{answer}")
    return Verity(found[1], salt, blocks)


def build(builder: Builder, uki: Path, root: Path, work: Path) -> Path:
    """Builds the disk; in `work`. It ends right behind its partitions: what a provider adds is scratch space."""
    esp_size = max(40 * _MIB, _up(uki.stat().st_size + 4 * _MIB))
    root_size = _up(root.stat().st_size)
    root_start = _MIB + esp_size
    disk = work / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(root_start + root_size + _MIB)
    table = "\n".join([
        "label: gpt", f"label-id: {_DISK_ID}", "unit: sectors", "sector-size: 512",
        f"start={_MIB // _SECTOR}, size={esp_size // _SECTOR}, type=U, uuid={_ESP_ID}, name=aicert-boot",
        f"start={root_start // _SECTOR}, size={root_size // _SECTOR}, type={_LINUX_DATA}, uuid={_ROOT_ID}, name={ROOT_NAME}",
        ""])
    (work / "table").write_text(table)
    esp = f"/work/{disk.name}@@{_MIB}"
    script = f"""
        sfdisk --quiet --no-tell-kernel --no-reread /work/{disk.name} </work/table
        mkfs.vfat --invariant -F 32 -s 1 -i {_VOLUME_ID} -n AICERT --offset {_MIB // _SECTOR} /work/{disk.name} {esp_size // 1024}
        mmd -i {esp} ::/EFI ::/EFI/BOOT
        mcopy -i {esp} /work/{uki.name} ::/EFI/BOOT/BOOTX64.EFI
    """
    builder.run("sh", "-euc", script, binds={"/work": work}, writable=("/work",))
    (work / "table").unlink()
    with open(disk, "r+b") as file, open(root, "rb") as source:
        file.seek(root_start)
        shutil.copyfileobj(source, file, _MIB)
    return disk


def _up(size: int) -> int:
    return -(-size // _MIB) * _MIB
