"""The forms of the disk that clouds and QEMU take; each follows from the raw disk alone, so that it is the same every time."""

import hashlib
import shutil
import struct
from pathlib import Path

from .common import Failure

_MIB = 1 << 20
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS


def vhd(raw: Path, target: Path) -> None:
    """A fixed VHD, for Azure: the disk, and a footer (Microsoft, "Virtual Hard Disk Image Format Specification" 1.0)."""
    size = raw.stat().st_size
    if size % _MIB:
        raise Failure(f"Azure takes disks of whole MiB, and {raw.name} has {size} bytes")
    with open(raw, "rb") as source, open(target, "wb") as file:
        identity = hashlib.file_digest(source, "sha256").digest()[:16] if hasattr(hashlib, "file_digest") \
            else hashlib.sha256(source.read()).digest()[:16]
        source.seek(0)
        shutil.copyfileobj(source, file, _MIB)
        file.write(_vhd_footer(size, identity))


def _vhd_footer(size: int, identity: bytes) -> bytes:
    fixed, no_data = 2, 0xFFFFFFFFFFFFFFFF
    footer = struct.pack(">8sIIQI4sI4sQQIII16sB427x", b"conectix", 2, 0x00010000, no_data, 0, b"aice", 0x00010000, b"Wi2k",
                         size, size, _geometry(size), fixed, 0, identity, 0)
    checksum = ~sum(footer) & 0xFFFFFFFF
    return footer[:64] + struct.pack(">I", checksum) + footer[68:]


def _geometry(size: int) -> int:
    """Cylinders, heads and sectors, as the appendix of the specification computes them."""
    sectors = min(size // 512, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        cylinder_heads = sectors // per_track
    else:
        per_track = 17
        cylinder_heads = sectors // per_track
        heads = max((cylinder_heads + 1023) // 1024, 4)
        if cylinder_heads >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            cylinder_heads = sectors // per_track
        if cylinder_heads >= heads * 1024:
            per_track, heads = 63, 16
            cylinder_heads = sectors // per_track
    return (cylinder_heads // heads) << 16 | heads << 8 | per_track


def qcow2(raw: Path, target: Path) -> None:
    """A qcow2 file without what is zero (QEMU, docs/interop/qcow2.txt, version 2): header, table of reference counts, table of
    tables, tables, clusters."""
    size = raw.stat().st_size
    clusters = -(-size // _CLUSTER)
    per_table, per_block = _CLUSTER // 8, _CLUSTER // 2
    tables = -(-clusters // per_table)
    used = _used_clusters(raw, clusters)
    # Reference counts cover themselves, too.
    others = 1 + -(-tables * 8 // _CLUSTER) + tables + len(used)
    blocks = 1
    while blocks * per_block < others + blocks + -(-blocks * 8 // _CLUSTER):
        blocks += 1
    count_table = -(-blocks * 8 // _CLUSTER)
    table_at = 1 + count_table + blocks
    level_2_at = table_at + -(-tables * 8 // _CLUSTER)
    data_at = level_2_at + tables
    place = {cluster: (data_at + index) << _CLUSTER_BITS for index, cluster in enumerate(used)}
    once = 1 << 63  # "copied": the reference count is one
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, _CLUSTER_BITS, size, 0, tables, table_at << _CLUSTER_BITS,
                         1 << _CLUSTER_BITS, count_table, 0, 0)
    with open(raw, "rb") as source, open(target, "wb") as file:
        _write(file, 0, header)
        _write(file, 1, _numbers((1 + count_table + block) << _CLUSTER_BITS for block in range(blocks)))
        _write(file, 1 + count_table, b"\0\1" * (data_at + len(used)))
        _write(file, table_at, _numbers((level_2_at + table) << _CLUSTER_BITS | once for table in range(tables)))
        _write(file, level_2_at, _numbers(place[cluster] | once if cluster in place else 0 for cluster in range(clusters)))
        for cluster in used:
            source.seek(cluster << _CLUSTER_BITS)
            _write(file, place[cluster] >> _CLUSTER_BITS, source.read(_CLUSTER))
        file.truncate((data_at + len(used)) << _CLUSTER_BITS)


def _used_clusters(raw: Path, clusters: int) -> list[int]:
    zero = bytes(_CLUSTER)
    with open(raw, "rb") as source:
        return [cluster for cluster in range(clusters) if source.read(_CLUSTER).ljust(_CLUSTER, b"\0") != zero]


def _numbers(values) -> bytes:
    return b"".join(struct.pack(">Q", value) for value in values)


def _write(file, cluster: int, content: bytes) -> None:
    file.seek(cluster << _CLUSTER_BITS)
    file.write(content)


FORMATS = {"raw": None, "vhd": vhd, "qcow2": qcow2}
"""What `--format` takes; the raw disk is always there."""
