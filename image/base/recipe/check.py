"""Looks at the finished root file system, whatever way it was made: nothing lets a person in, everything finds what it needs."""

import os
import re
import stat
from pathlib import Path

from . import elf
from .common import Failure

_SHELLS = re.compile(
    r"(sh|[bdkzcr]a?sh|bash|ash|fish|tcsh|mksh|busybox|toybox|perl[0-9.]*|python[0-9.]*|lua[0-9.]*|ruby[0-9.]*|gdb|strace"
    r"|login|su|sudo|sulogin|doas|pkexec|agetty|getty|passwd|chpasswd|newgrp|sshd?|dropbear|telnetd?|nc|netcat|socat"
    r"|apt(-get)?|dpkg(-deb)?|rpm|pip[0-9.]*|docker|ctr|crictl|nsenter|chroot|kexec|insmod|modprobe|mount|systemd|init)")
"""Names of programs that start others as a person likes, let somebody in, or install something."""

_ALLOWED = {"/usr/lib/aicert/init"}
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/lib64")


def check(root: Path, server: str) -> None:
    """Reports everything that is wrong with the root file system in a folder."""
    faults: list[str] = []
    programs = {}
    for parent, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(parent, name)
            shown = "/" + str(path.relative_to(root))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                faults += _link(root, path, shown)
            elif stat.S_ISREG(mode):
                faults += _file(path, shown, mode)
                if elf.is_elf(path) and path.suffix != ".ko":
                    programs[shown] = elf.read(path)
            elif not stat.S_ISDIR(mode):
                faults.append(f"{shown} is neither a file, a link nor a folder")
            if mode & (stat.S_ISUID | stat.S_ISGID):
                faults.append(f"{shown} runs with the rights of its owner (setuid or setgid)")
            if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
                faults.append(f"everybody may write {shown}")
    faults += _accounts(root)
    for shown, program in programs.items():
        faults += _needs(root, shown, program, programs)
    if server not in programs:
        faults.append(f"{server} is no program")
    if faults:
        raise Failure("the root file system is not as it must be:\n  " + "\n  ".join(faults))


def _link(root: Path, path: Path, shown: str) -> list[str]:
    target = os.readlink(path)
    if target.startswith("/run/"):
        return []  # is there only when the machine runs
    absolute = os.path.normpath(os.path.join(os.path.dirname(shown), target))
    return [] if _resolve(root, absolute) else [f"{shown} points to {target}, which is not there"]


def _resolve(root: Path, name: str, depth: int = 0) -> Path | None:
    """The file that a path means in the root file system."""
    current = root
    parts = [part for part in name.split("/") if part]
    for index, part in enumerate(parts):
        current = current / part
        if current.is_symlink():
            if depth > 20:
                return None
            target = os.path.join("/" + str(current.parent.relative_to(root)), os.readlink(current))
            return _resolve(root, os.path.normpath("/".join([target, *parts[index + 1:]])), depth + 1)
        if not current.exists():
            return None
    return current


def _file(path: Path, shown: str, mode: int) -> list[str]:
    faults = []
    if _SHELLS.fullmatch(path.name) and shown not in _ALLOWED and (mode & 0o111 or elf.is_elf(path)):
        faults.append(f"{shown} is a program with the name of a shell, of a way in, or of an installer")
    with open(path, "rb") as file:
        beginning = file.read(2)
    if beginning == b"#!":
        faults.append(f"{shown} is a script, and there is nothing to run it with")
    if mode & 0o111 and beginning != b"\x7fE":
        faults.append(f"{shown} can be executed, and is no ELF file")
    return faults


def _accounts(root: Path) -> list[str]:
    faults = []
    for line in (root / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if len(fields) != 7 or fields[1] != "*" or fields[6] != "/nonexistent":
            faults.append(f"/etc/passwd lets somebody log in: {line}")
    for name in ("shadow", "gshadow", "securetty", "inittab", "sudoers", "pam.d", "ssh", "systemd"):
        if (root / "etc" / name).exists():
            faults.append(f"/etc/{name} is there")
    return faults


def _needs(root: Path, shown: str, program: elf.Elf, programs: dict[str, elf.Elf]) -> list[str]:
    faults = []
    if program.interpreter and not _resolve(root, program.interpreter):
        faults.append(f"{shown} needs the loader {program.interpreter}, which is not there")
    for library in program.needed:
        found = _library(root, library, program.search)
        if not found:
            faults.append(f"{shown} needs the library {library}, which is not there")
            continue
        offered = programs["/" + str(found.relative_to(root))].versions
        missing = sorted(program.needed_versions.get(library, set()) - offered)
        if missing:
            faults.append(f"{shown} needs {library} with {', '.join(missing)}, which the one that is there does not have")
    return faults


def _library(root: Path, library: str, search: list[str]) -> Path | None:
    for folder in (*(place for place in search if place.startswith("/")), *_LIBRARIES):
        found = _resolve(root, f"{folder}/{library}")
        if found:
            return found
    return None
