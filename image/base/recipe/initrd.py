"""The initrd: aicert-init, and the kernel modules that it needs to find the root file system."""

from pathlib import Path, PurePosixPath

from .modules import Modules

_FOLDER, _FILE, _PROGRAM, _CHARACTER_DEVICE = 0o040755, 0o100644, 0o100755, 0o020600


class Archive:
    """A cpio archive in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._entries = 0
        self._folders: set[str] = set()

    def folder(self, name: str) -> None:
        """Adds a folder, and those above it."""
        for folder in reversed((PurePosixPath(name), *PurePosixPath(name).parents)):
            text = str(folder)
            if text != "." and text not in self._folders:
                self._folders.add(text)
                self._entry(text, _FOLDER)

    def file(self, name: str, content: bytes, program: bool = False) -> None:
        """Adds a file, and the folders that it is in."""
        self.folder(str(PurePosixPath(name).parent))
        self._entry(name, _PROGRAM if program else _FILE, content)

    def device(self, name: str, major: int, minor: int) -> None:
        """Adds a character device."""
        self.folder(str(PurePosixPath(name).parent))
        self._entry(name, _CHARACTER_DEVICE, device=(major, minor))

    def finish(self) -> bytes:
        """Ends the archive."""
        self._entry("TRAILER!!!", 0)
        return bytes(self._bytes)

    def _entry(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        # Inode, mode, user, group, links, time, size, device of the file (2), device that it is (2), size of the name, checksum.
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        self._bytes += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self._pad()
        self._bytes += content
        self._pad()

    def _pad(self) -> None:
        self._bytes += bytes(-len(self._bytes) % 4)


def build(init: Path, modules: Modules, folder: Path) -> bytes:
    """Builds the archive; `folder` has the kernel's modules."""
    archive = Archive()
    for name in ("dev", "proc", "run", "sys", "sysroot"):
        archive.folder(name)
    # The kernel opens it for init before init can mount anything.
    archive.device("dev/console", 5, 1)
    archive.file("init", init.read_bytes(), program=True)
    inside = f"usr/lib/modules/{modules.release}"
    archive.file("modules", "".join(f"/{inside}/{name}\n" for name in modules.initrd).encode())
    for name in sorted(modules.initrd):
        archive.file(f"{inside}/{name}", (folder / name).read_bytes())
    return archive.finish()
