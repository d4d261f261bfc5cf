"""The builder: a small Debian in a folder, in which everything is built, so that the tools of this machine do not matter.

Programs run in it without network, in namespaces of their own: as root, or as any user where user namespaces are allowed.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .common import EPOCH, Failure, made_once, run_whole, say, sha256_of_text, tool
from .locks import Package
from .mirrors import Mirrors
from .unpack import merge_usr, unpack_archive

_MOUNT_POINTS = ("source", "target", "vendor", "cargo", "rust", "work", "input", "packages")
"""What may be bound into the builder, each directly below /."""

_INSIDE = r"""
set -eu
mount --make-rprivate /
# The folder itself stays as it is: it is shared by all builds.
mount --bind "$root" "$root"
for special in dev proc; do mount --rbind "/$special" "$root/$special"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
eval "$binds"
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class Builder:
    """A folder with the builder."""

    root: Path
    key: str
    """Names what is in it."""

    @staticmethod
    def prepare(packages: list[Package], mirrors: Mirrors, cache: Path) -> "Builder":
        """Unpacks the builder, unless it is there from an earlier build."""
        key = sha256_of_text("builder 1", *(package.line() for package in packages))

        def make(folder: Path) -> None:
            say("builder", f"unpacking {len(packages)} packages")
            merge_usr(folder)
            for package in packages:
                unpack_archive(mirrors.file_of(package), folder)
            _finish(folder)

        return Builder(made_once(cache / "base/builders" / key[:32], make), key)

    def run(self, *arguments, binds: dict[str, Path] | None = None, writable: tuple[str, ...] = (), folder: str = "/",
            environment: dict[str, str | None] | None = None, ids: bool = False, shows: bool = False) -> bytes:
        """Runs a program in the builder, and returns what it prints.

        `binds` says what of this machine it sees, and where; it can write only where `writable` says. `ids` asks for more
        than one user, which unprivileged users have only with `uidmap`. What it `shows`, people see.
        """
        unshare = [tool("unshare", "util-linux"), "--mount", "--net", "--ipc", "--uts"]
        if os.geteuid() != 0:
            unshare += ["--user", "--map-root-user"] + (["--map-auto"] if ids else [])
        settings = {"PATH": "/rust/bin:/usr/sbin:/usr/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LC_ALL": "C.UTF-8", "TZ": "UTC",
                    "SOURCE_DATE_EPOCH": str(EPOCH), **(environment or {})}
        variables = [f"{name}={value}" for name, value in settings.items() if value is not None]
        command = [*unshare, "sh", "-c", _INSIDE, "sh", *variables, "/usr/bin/env", "--chdir", folder, *map(str, arguments)]
        done = run_whole(
            command, stdout=subprocess.PIPE, stderr=None if shows else subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "root": str(self.root),
                 "binds": _binds(self.root, binds or {}, writable)})
        if done.returncode != 0:
            said = "" if shows else "\n" + done.stderr.decode(errors="replace").strip()
            raise Failure(f"{arguments[0]} in the builder ended with status {done.returncode}{said}",
                          "" if os.geteuid() == 0 else
                          "if namespaces are what is missing: allow user namespaces and install uidmap, or build as root")
        return done.stdout


def _binds(root: Path, binds: dict[str, Path], writable: tuple[str, ...]) -> str:
    """The shell commands that bind files and folders into the builder."""
    lines = []
    for inside, outside in binds.items():
        if inside.split("/")[1] not in _MOUNT_POINTS:
            raise ValueError(f"{inside} is no mount point of the builder")
        target, source = shlex.quote(f"{root}{inside}"), shlex.quote(str(outside.resolve()))
        lines.append(f"mount --bind {source} {target}")
        if inside not in writable:
            lines.append(f"mount -o remount,bind,ro {target}")
    return "\n".join(lines)


def _finish(folder: Path) -> None:
    """Does the little that the packages' scripts would have done and that is needed."""
    for name in (*_MOUNT_POINTS, "dev", "proc", "tmp", "var/lib/dpkg"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, target in (("cc", "gcc"), ("awk", "gawk")):
        link = folder / "usr/bin" / name
        if not link.is_symlink():
            link.symlink_to(target)
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (folder / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (folder / "var/lib/dpkg/status").touch()
