"""The image, from the packages to the folder that is published."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import check, disk, formats, initrd, modules, uki
from .builder import Builder
from .common import BASE, Failure, say, scratch, sha256_of, size
from .locks import Package, Wanted, read_wanted
from .mirrors import Mirrors
from .programs import Source
from .python import Container
from .root import Root
from .unpack import Unpacked

_COMMAND_LINE = "console=ttyS0,115200 panic=-1 loglevel=5 lockdown=confidentiality efi=noruntime no_timer_check"
# With lockdown, the kernel loads modules with Debian's signature alone, and those of a GPU have none.
_COMMAND_LINE_GPU = "console=ttyS0,115200 panic=-1 loglevel=5 efi=noruntime no_timer_check"
_SERVER, _INIT = "/usr/lib/aicert/aicert-server", "/usr/lib/aicert/init"


@dataclass(frozen=True)
class Variant:
    """Which image is built."""

    name: str
    """Nothing, or `gpu`."""
    packages: list[Package]
    """What it has besides those of all images."""

    def __str__(self) -> str:
        return f"aicert-base-{self.name}" if self.name else "aicert-base"


@dataclass(frozen=True)
class Boot:
    """What firmware starts, before it is put together."""

    package: Package
    """The kernel's."""
    kernel: Path
    stub: Path
    modules: Path
    """The folder with all modules of the kernel."""


def boot_files(root: Root, wanted: list[Wanted]) -> Boot:
    """Finds kernel, modules and stub; they are not on the root file system."""
    found: dict[str, tuple[Package, Path]] = {}
    for line in wanted:
        if line.files:
            package = line.of(root.unpacked.packages)
            root.used.add(package)
            for name, path in root.unpacked.matching(package, line.files, line.where).items():
                for key, fits in (("kernel", name.startswith("/boot/vmlinuz-")), ("stub", name.endswith(".efi.stub")),
                                  ("modules", name.endswith("/modules.builtin"))):
                    if fits:
                        found[key] = package, path
    if set(found) != {"kernel", "stub", "modules"}:
        raise Failure("the section [boot] of image/base/packages must name a kernel, its modules, and a stub")
    package, kernel = found["kernel"]
    return Boot(package, kernel, found["stub"][1], found["modules"][1].parent)


class Image:
    """An image that is being built."""

    def __init__(self, source: Source, variant: Variant, builder: Builder, programs: dict[str, Path], packages: list[Package],
                 mirrors: Mirrors, cache: Path, work: Path):
        """`packages` are those that the root file system is made from."""
        self.source, self.variant, self.builder, self.programs, self.work = source, variant, builder, programs, work
        self.packages = packages + variant.packages
        self.root = Root(work / "tree", Unpacked(self.packages, mirrors, cache))
        self.statement = ""
        self.disk = work / "none"

    def build(self, container: Container, words: list[str]) -> None:
        """Builds the disk; `words` are added to the kernel's command line."""
        say("root", "putting the root file system together")
        wanted = read_wanted(BASE / "packages")
        boot = boot_files(self.root, wanted["boot"])
        chosen = self._choose_modules(boot)
        self._fill_root(wanted["root"], chosen, container)
        check.check(self.root.tree.folder, _SERVER)
        say("root", "compressing it, and computing its hash tree")
        file_system = disk.squash(self.builder, self.root.tree.folder, self.work)
        verity = disk.add_verity(self.builder, file_system, self.work)
        always = _COMMAND_LINE_GPU if self.variant.name == "gpu" else _COMMAND_LINE
        command_line = " ".join([always, *words, f"aicert.root={verity}"])
        say("boot", "building initrd and unified kernel image")
        sections = {
            "osrel": self._os_release().encode(), "uname": chosen.release.encode(), "cmdline": command_line.encode(),
            "linux": boot.kernel.read_bytes(), "initrd": initrd.build(self.programs["aicert-init"], chosen, boot.modules)}
        image = uki.build(self.builder, boot.stub, sections, self.work)
        say("disk", f"building the disk: UKI {size(image.stat().st_size)}, root file system {size(file_system.stat().st_size)}")
        self.disk = disk.build(self.builder, image, file_system, self.work)

    def _choose_modules(self, boot: Boot) -> modules.Modules:
        others = []
        if self.variant.name == "gpu":
            others = self.root.add_from_anywhere(read_wanted(BASE / "packages.gpu")["gpu"])
        place = f"/usr/lib/modules/{boot.modules.name}/"
        strangers = [name for name in others if not name.startswith(place)]
        if strangers:
            raise Failure(f"{strangers[0]} is not for the locked kernel, {boot.modules.name}",
                          "name packages with modules that were built for it")
        found = {name.removeprefix(place): self.root.unpacked.file(name) for name in others}
        return modules.choose(boot.modules, read_wanted(BASE / "modules"), found)

    def _fill_root(self, wanted: list[Wanted], chosen: modules.Modules, container: Container) -> None:
        root = self.root
        root.tree.add(_SERVER, self.programs["aicert-server"])
        root.tree.add(_INIT, self.programs["aicert-init"])
        root.tree.add(f"/usr/share/aicert/{container.archive.name}", container.archive)
        root.tree.add_text("/usr/lib/os-release", self._os_release())
        root.add_fixed(self.source)
        root.add_packages(wanted)
        root.add_modules(chosen)
        root.add_libraries()
        root.add_licences()
        release = {"name": str(self.variant), "version": self.source.version, "commit": self.source.commit}
        self.statement = root.add_statements(release, self.packages + container.packages)

    def _os_release(self) -> str:
        version = self.source.version
        return (f'NAME="aicert base image"\nID=aicert\nIMAGE_ID={self.variant}\nIMAGE_VERSION={version}\n'
                f'BUILD_ID={self.source.commit}\nPRETTY_NAME="aicert base image {version}"\n')

    def publish(self, output: Path, names: list[str]) -> None:
        """Writes the folder, whole or not at all."""
        stem = f"{self.variant}-{self.source.version}-x86_64"
        with scratch(output.parent, f".{output.name}.") as folder:
            made = folder / "made"
            made.mkdir()
            raw = made / f"{stem}.raw"
            shutil.move(self.disk, raw)
            for name in names:
                if formats.FORMATS[name]:
                    say("disk", f"writing {stem}.{name}")
                    formats.FORMATS[name](raw, made / f"{stem}.{name}")
            say("measure", "computing reference values")
            (made / f"{stem}.reference-values.json").write_text(self._measured(raw))
            (made / f"{stem}.packages.txt").write_text(self.statement)
            sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(made.iterdir()))
            (made / "SHA256SUMS").write_text(sums)
            for path in made.iterdir():
                path.chmod(0o644)
            made.rename(output)
        say("done", str(output))
        print(sums, end="", flush=True)

    def _measured(self, raw: Path) -> str:
        done = subprocess.run([self.programs["aicert"].absolute(), "image", "measure", raw, "--json"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"`aicert image measure` refuses the image:\n{done.stderr.strip()}")
        return json.dumps(json.loads(done.stdout), indent=2) + "\n"
