"""Compiles aicert's own programs in the builder: the same source gives the same bytes, wherever it lies."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from .builder import Builder
from .common import BASE, Failure, forget, locked, made_once, run_whole, say, scratch, sha256_of, sha256_of_text

_TARGET = "x86_64-unknown-linux-gnu"

_CARGO = f"""
[source.crates-io]
replace-with = "vendor"
[source.vendor]
directory = "/vendor"
[net]
offline = true
[build]
target = "{_TARGET}"
[term]
color = "never"
"""

_PROGRAMS = {
    "aicert-server": ("aicert-server", (), ""),
    # Alone in the initrd, so it must not need libraries.
    "aicert-init": ("aicert-init", (), "-C target-feature=+crt-static"),
    # Only measures the image; it is not in it.
    "aicert": ("aicert-cli", ("--no-default-features",), ""),
}
"""By program: its package, what cargo is told, and what the compiler is told."""


@dataclass(frozen=True)
class Source:
    """A checkout of aicert."""

    folder: Path
    version: str
    commit: str
    """The commit; with `-modified` behind it where the image is not built from exactly that."""

    @staticmethod
    def read(folder: Path, modified: bool) -> "Source":
        """Asks git what this is a checkout of; `modified` says that the image is not built from it alone. It never is when the
        recipe is another checkout's: then lists, locks and fixed files are not those of the commit."""
        manifest = folder / "Cargo.toml"
        if not manifest.is_file():
            raise Failure(f"{folder} is no checkout of aicert: it has no Cargo.toml")
        version = next((line.split('"')[1] for line in manifest.read_text().splitlines() if line.startswith("version = ")), "")
        if not version:
            raise Failure(f"{manifest} says no version")
        commit = _git(folder, "rev-parse", "HEAD").strip()
        # Whatever people have git show them.
        changes = _git(folder, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none").strip()
        source = Source(folder, version, commit)
        return replace(source, commit=f"{commit}-modified") if modified or changes or not source.is_own else source

    @property
    def is_own(self) -> bool:
        """Whether it is the checkout that the recipe is in."""
        return self.folder == BASE.parent.parent

    def files(self) -> list[str]:
        """The files and links of the checkout: what git has, and what is new and not ignored."""
        names = _git(self.folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        return sorted(name for name in set(names) if name and os.path.lexists(self.folder / name))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, "-c", f"safe.directory={folder}", *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError as error:
        raise Failure("git is not installed", "sudo apt-get install git", 3) from error
    if done.returncode != 0:
        raise Failure(f"git does not know what {folder} is: {done.stderr.strip()}",
                      "build from a clone of aicert's repository: the image says of which commit it is")
    return done.stdout


class Programs:
    """The compiler, and where it works."""

    def __init__(self, source: Source, builder: Builder, cache: Path):
        self.source, self.builder = source, builder
        self.rust = _toolchain()
        # What one compiler has compiled is of no use to another.
        key = sha256_of_text(builder.key, (BASE / "rust").read_text())[:32]
        self.folder = cache / "base/programs" / key
        self.vendor = cache / "base/vendor" / sha256_of(source.folder / "Cargo.lock")[:32]
        with locked(cache / "base/programs.lock"):
            forget(self.folder.parent, 2)
            forget(self.vendor.parent, 3)
        self.folder.mkdir(parents=True, exist_ok=True)

    def build(self, program: str, target: Path) -> None:
        """Compiles a program, and copies it to `target`."""
        made_once(self.vendor, self._fetch)
        package, arguments, flags = _PROGRAMS[program]
        kind = "static" if "crt-static" in flags else "dynamic"
        with locked(self.folder / "lock"):
            self._stage()
            home, made = self.folder / "cargo", self.folder / "target"
            for folder in (home, made):
                folder.mkdir(exist_ok=True)
            (home / "config.toml").write_text(_CARGO)
            say("programs", f"compiling {program}")
            self.builder.run(
                "cargo", "build", "--release", "--locked", "--offline", "--quiet", "--package", package, *arguments,
                binds={"/source": self.folder / "source", "/target": made, "/cargo": home, "/vendor": self.vendor,
                       "/rust": self.rust},
                writable=("/target", "/cargo"), folder="/source", shows=True,
                # Programs that are linked otherwise are kept apart, or they would be compiled anew every time.
                environment={"CARGO_HOME": "/cargo", "CARGO_TARGET_DIR": f"/target/{kind}", "CARGO_INCREMENTAL": "0",
                             "RUSTFLAGS": flags})
            shutil.copy(made / kind / _TARGET / "release" / program, target)
        target.chmod(0o755)

    def _stage(self) -> None:
        """Copies the source to where the builder sees it. A file that has not changed keeps its time, and one that has
        gets a new one, whatever times the checkout has: so cargo knows what to compile, also when checkouts share it."""
        staged = self.folder / "source"
        # What links of the image's root file system lead to is not there, and of no use to the compiler.
        names = [name for name in self.source.files() if (self.source.folder / name).is_file()]
        staged.mkdir(exist_ok=True)
        for name in names:
            old, new = staged / name, self.source.folder / name
            content = new.read_bytes()
            if not old.is_file() or old.read_bytes() != content:
                old.parent.mkdir(parents=True, exist_ok=True)
                old.write_bytes(content)
            old.chmod(0o755 if os.access(new, os.X_OK) else 0o644)
        for path in sorted(staged.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif str(path.relative_to(staged)) not in set(names):
                path.unlink()

    def _fetch(self, folder: Path) -> None:
        """Fetches the sources of all crates; cargo checks them against Cargo.lock. Of what it keeps for this user it is given
        the settings alone, which say where crates and credentials are: archives that it has, it would not check again."""
        say("programs", "fetching the crates that Cargo.lock names")
        kept = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
        with scratch(self.folder.parent.parent, ".cargo-") as home:
            for name in ("config.toml", "config", "credentials.toml", "credentials"):
                if (kept / name).is_file():
                    (home / name).symlink_to((kept / name).resolve())
            done = run_whole([self.rust / "bin/cargo", "vendor", "--quiet", "--locked", "--versioned-dirs", "--manifest-path",
                              self.source.folder / "Cargo.toml", folder], env={**os.environ, "CARGO_HOME": str(home)},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Failure(f"cargo could not fetch the crates: {done.stderr.strip()}")


def _toolchain() -> Path:
    """The Rust toolchain that the recipe names: another one would make other programs."""
    release, commit = (BASE / "rust").read_text().split()
    for command in (["rustc"], ["rustup", "run", release, "rustc"]):
        try:
            answer = subprocess.run([*command, "--version", "--verbose"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                    text=True, check=False, cwd="/").stdout
            if f"commit-hash: {commit}" in answer:
                return Path(subprocess.run([*command, "--print", "sysroot"], stdout=subprocess.PIPE, text=True, check=True,
                                           cwd="/").stdout.strip())
        except FileNotFoundError:
            continue
    raise Failure(f"the image is built with Rust {release} ({commit[:9]}), which is not installed",
                  f"rustup toolchain install --profile minimal {release}", 3)
