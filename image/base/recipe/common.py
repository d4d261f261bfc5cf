"""What every step needs: errors for people, progress, files, hashes."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent
"""The folder of the recipe, `image/base`."""

EPOCH = 315532800
"""1980-01-01, the first time that a FAT file system can hold: what tools are told that it is."""


class Failure(Exception):
    """Ends the build. `help` says what to do; `status` 3 says that a tool is missing."""

    def __init__(self, message: str, help: str = "", status: int = 1):
        super().__init__(message)
        self.help = help
        self.status = status


_started = time.monotonic()
_STALE = 86400
_PATIENCE = 10


def start_in_order() -> None:
    """Makes the process one like any other: what it makes does not depend on who started it."""
    os.umask(0o022)


def end_in_order() -> None:
    """Has a signal that ends the program end it in order, so that nothing is left behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _frame) -> None:
        # One is enough: another would interrupt the cleaning up.
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, stop)


def run_whole(command: list, **options) -> subprocess.CompletedProcess:
    """Runs a program. If this one is ended meanwhile, so is everything that the program started, before anything is removed."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            output, said = process.communicate()
        except BaseException:
            _end_group(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, said)


def _end_group(process: subprocess.Popen) -> None:
    until = time.monotonic() + _PATIENCE
    with contextlib.suppress(OSError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def say(step: str, message: str) -> None:
    """Reports progress: one line a step, on standard error."""
    print(f"{time.monotonic() - _started:6.1f} s  {step:<9} {message}", file=sys.stderr, flush=True)


def size(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 1e6:.1f} MB"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_text(*parts: str) -> str:
    """A hash that names a combination of inputs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def tool(name: str, package: str) -> str:
    """The path of a program of this machine."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise Failure(f"{name} is not installed", f"sudo apt-get install {package}", 3)
    return found


def default_cache() -> Path:
    """Where things are kept between builds."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/tmp"), ".cache")
    return Path(base) / "aicert"


@contextlib.contextmanager
def locked(path: Path):
    """Keeps other builds from something that is shared, for as long as the context lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_tree(path: Path) -> None:
    """Removes a folder, also one whose own folders are read-only."""
    if not path.exists():
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o755)
    shutil.rmtree(path)


def sweep(cache: Path) -> None:
    """Removes from a cache what builds that were killed left behind."""
    for pattern in ("base/.*", "base/*/.*", "packages/.*"):
        for left in cache.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # another build removed it
                if time.time() - left.lstat().st_mtime > _STALE:
                    remove_tree(left) if left.is_dir() else left.unlink()


@contextlib.contextmanager
def scratch(parent: Path, prefix: str):
    """A folder that is gone when the context ends."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove_tree(folder)


def made_once(target: Path, make) -> Path:
    """A folder of the cache: `make(folder)` fills it if it is not there. It is there whole or not at all, also after the
    power was cut."""
    if target.is_dir():
        os.utime(target)  # in use: see `forget`
        return target
    with locked(target.with_name(target.name + ".lock")):
        if not target.is_dir():
            with scratch(target.parent, ".making-") as folder:
                made = folder / "made"
                made.mkdir()
                make(made)
                os.sync()
                made.rename(target)
    return target


def forget(parent: Path, keep: int) -> None:
    """Keeps only those folders of a cache that were used last."""
    if not parent.is_dir():
        return
    folders = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        remove_tree(folder)
        folder.with_name(folder.name + ".lock").unlink(missing_ok=True)
