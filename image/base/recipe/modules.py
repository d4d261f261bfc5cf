"""Chooses kernel modules: those that a list names, and those that these depend on, in an order in which they load."""

from dataclasses import dataclass
from pathlib import Path

from . import elf
from .common import Failure


@dataclass(frozen=True)
class Modules:
    """The modules of a kernel that an image has, by where they are loaded."""

    release: str
    """What `uname -r` says."""
    initrd: list[str]
    """For the initrd: paths below `/lib/modules/<release>`, what is depended on first."""
    root: list[str]
    """For the root file system, without those that the initrd has loaded by then."""


class _Kernel:
    """All modules of a kernel, by name."""

    def __init__(self, folder: Path, others: dict[str, Path]):
        self.folder = folder
        self.places = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.ko"))} | others
        self.paths = {_name(Path(place).stem): place for place in self.places}
        if not self.paths:
            raise Failure(f"there are no kernel modules in {folder}")
        builtin = (folder / "modules.builtin").read_text().split()
        self.builtin = {_name(Path(line).stem) for line in builtin}

    def add(self, name: str, order: list[str], known: set[str], by: str, above: tuple[str, ...] = ()) -> None:
        """Adds a module to an order, behind all that it depends on."""
        if name in known or name in self.builtin:
            return
        if name in above:
            raise Failure(f"kernel modules depend on each other: {' → '.join((*above, name))}")
        path = self.paths.get(name)
        if path is None:
            raise Failure(f"{by} names the kernel module {name}, which {self.folder} does not have")
        info = elf.module_info(self.places[path])
        before = [part for line in info.get("depends", []) for part in line.split(",") if part]
        before += _soft_before(info.get("softdep", []), self)
        for other in before:
            self.add(_name(other), order, known, f"the kernel module {name}", (*above, name))
        known.add(name)
        order.append(path)


def _soft_before(lines: list[str], kernel: _Kernel) -> list[str]:
    """What a module would like to have loaded before itself, if this kernel has it (modprobe.d(5), `softdep`)."""
    found = []
    for line in lines:
        wanted = False
        for word in line.split():
            if word.endswith(":"):
                wanted = word == "pre:"
            elif wanted and _name(word) in kernel.paths:
                found.append(word)
    return found


def choose(folder: Path, wanted: dict[str, list], others: dict[str, Path] | None = None) -> Modules:
    """Chooses from the modules in `folder` (`/lib/modules/<release>`) what the sections of a list name.

    `others` are modules from elsewhere, by where they would be in it; all of them are loaded last.
    """
    kernel = _Kernel(folder, others or {})
    known: set[str] = set()
    orders: dict[str, list[str]] = {"initrd": [], "root": []}
    for section, lines in wanted.items():
        if section not in orders:
            raise Failure(f"{lines[0].where if lines else section}: there are the sections [initrd] and [root]")
    for section, order in orders.items():
        for line in wanted.get(section, []):
            kernel.add(_name(line.name), order, known, line.where)
    for path in others or {}:
        kernel.add(_name(Path(path).stem), orders["root"], known, path)
    return Modules(folder.name, orders["initrd"], orders["root"])


def _name(name: str) -> str:
    """A module's name as the kernel spells it."""
    return name.replace("-", "_")
