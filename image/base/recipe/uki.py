"""The unified kernel image (UAPI.5): one program for firmware, with kernel, initrd and command line in it."""

import struct
from pathlib import Path

from .builder import Builder
from .common import Failure

_ALIGNMENT = 0x1000


def end_of_sections(image: bytes) -> int:
    """The address behind the last section of a PE file (Microsoft, "PE Format")."""
    try:
        header = struct.unpack_from("<I", image, 0x3C)[0]
        signature, _, count, _, _, _, optional, _ = struct.unpack_from("<4sHHIIIHH", image, header)
        if image[:2] != b"MZ" or signature != b"PE\0\0" or count == 0:
            raise Failure("the stub is no PE file")
        table = header + 24 + optional
        sections = [struct.unpack_from("<8sII", image, table + 40 * index) for index in range(count)]
    except struct.error as error:
        raise Failure(f"the stub is a broken PE file: {error}") from error
    return max(address + length for _, length, address in sections)


def build(builder: Builder, stub: Path, sections: dict[str, bytes], work: Path) -> Path:
    """Builds the image from systemd's stub as systemd-stub(7) says; in `work`."""
    (work / "stub").write_bytes(stub.read_bytes())
    address = end_of_sections(stub.read_bytes())
    arguments = []
    for name, content in sections.items():
        address = -(-address // _ALIGNMENT) * _ALIGNMENT
        (work / name).write_bytes(content)
        arguments += ["--add-section", f".{name}=/work/{name}", "--change-section-vma", f".{name}={address:#x}"]
        address += len(content)
    # Preserving dates, it keeps the time in the header, which would else be the present one.
    builder.run("objcopy", "--preserve-dates", *arguments, "/work/stub", "/work/uki.efi",
                binds={"/work": work}, writable=("/work",))
    for name in sections:
        (work / name).unlink()
    return work / "uki.efi"
