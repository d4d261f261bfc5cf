"""Writes the locks: the newest packages that the archives have, of what the lists ask for."""

import datetime
import subprocess
from pathlib import Path

from .common import BASE, Failure, say, scratch, size
from .image import boot_files
from .locks import Package, read_wanted, write_lock
from .mirrors import Mirrors
from .root import Root
from .solve import Solver
from .unpack import Unpacked


def lock(mirrors: Mirrors, cache: Path) -> None:
    """Writes all locks, if everything that they name can be fetched."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    found: dict[str, list[Package]] = {}
    with scratch(cache / "base", ".apt-") as folder:
        solver = Solver(mirrors, folder)
        for name in ("builder", "packages"):
            wanted = sorted({line.name for lines in read_wanted(BASE / name).values() for line in lines if not line.is_pattern})
            say("lock", f"asking apt about {name}")
            found[name] = solver.install(wanted)
        say("lock", "asking image/python/build about python")
        found["python"] = solver.described(_python_packages(mirrors, cache))
    for name, packages in found.items():
        mirrors.fetch(packages, BASE / f"{name}.lock", date.replace("-", ""))
    found["packages"] = _used(found["packages"], mirrors, cache)
    for name, packages in found.items():
        write_lock(BASE / f"{name}.lock", packages, date)
        say("lock", f"{name}.lock: {len(packages)} packages, {size(sum(package.size for package in packages))}")


def _used(packages: list[Package], mirrors: Mirrors, cache: Path) -> list[Package]:
    """Those packages that something of the image is taken from. What aicert-server needs is not known here, so packages that
    are named without files count whole."""
    wanted = read_wanted(BASE / "packages")
    with scratch(cache / "base", ".lock-") as work:
        root = Root(work, Unpacked(packages, mirrors, cache))
        boot_files(root, wanted["boot"])
        root.add_packages(wanted["root"])
        for line in wanted["root"]:
            if not line.files:
                root.add_all_libraries(line.of(packages))
        root.add_libraries()
        return list(root.used)


def _python_packages(mirrors: Mirrors, cache: Path) -> list[str]:
    """What `image/python/build` installs, as `name=version`."""
    with scratch(cache / "base", ".python-") as work:
        done = subprocess.run(
            [BASE.parent / "python/build", "--suite", "bookworm", "--output", work / "image.tar", "--packages", work / "packages",
             "--mirror", mirrors.urls["debian"], "--security-mirror", mirrors.urls["debian-security"]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"image/python/build failed:\n{done.stderr.strip()}", "", done.returncode)
        return [line.split(" ", 1)[0] for line in (work / "packages").read_text().splitlines()]
