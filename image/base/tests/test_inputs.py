"""What the recipe reads: locks, lists, mirrors, ELF files."""

import struct
import tempfile
import unittest
from pathlib import Path

from recipe import elf, locks, modules, uki
from recipe.common import BASE, Failure, forget, made_once, sha256_of
from recipe.mirrors import Mirrors

GOOD = f"tini 0.19.0-1+b3 debian pool/main/t/tini/tini_0.19.0-1+b3_amd64.deb 267204 {'ab' * 32}"


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def refused(self, words: str, work, *arguments):
        with self.assertRaises(Failure) as caught:
            work(*arguments)
        self.assertIn(words, f"{caught.exception}\n{caught.exception.help}")


class Locks(Case):
    def read(self, *lines):
        path = self.folder / "lock"
        path.write_text("# comment\n" + "\n".join(lines) + "\n")
        return locks.read_lock(path)

    def test_reads_what_it_writes(self):
        packages = self.read(GOOD)
        path = self.folder / "again"
        locks.write_lock(path, packages, "2026-01-31")
        self.assertEqual(locks.read_lock(path), packages)
        self.assertEqual(locks.lock_date(path), "20260131")

    def test_refuses_what_is_not_exactly_a_package(self):
        self.refused("names no package", self.read)
        self.refused("two packages tini", self.read, GOOD, GOOD)
        self.refused("expected `name version", self.read, GOOD + " more")
        self.refused("expected `name version", self.read, " ".join(GOOD.split()[:-1]))
        for old, new, what in [
            ("pool/main", "pool/../..", "path"), ("pool/main", "/pool", "path"), ("pool/main", "pool//main", "path"),
            ("267204", "-1", "size"), ("267204", "0", "size"), ("abab", "ABAB", "sha256"), (" debian ", " elsewhere ", "archive"),
            ("tini 0", "../tini 0", "name"), ("0.19.0-1+b3 ", "$(id) ", "version"),
        ]:
            with self.subTest(new=new):
                self.refused(f"is no {what}", self.read, GOOD.replace(old, new, 1))

    def test_the_locks_of_the_recipe_have_what_is_asked_for(self):
        for name in ("packages", "builder"):
            packages = locks.read_lock(BASE / f"{name}.lock")
            names = {package.name for package in packages}
            for lines in locks.read_wanted(BASE / name).values():
                for line in lines:
                    if line.files:
                        line.of(packages)
                    elif not line.name.startswith("linux-image-"):
                        self.assertIn(line.name, names)

    def test_a_pattern_must_mean_one_package(self):
        line = locks.Wanted("tini*", (), "list:1")
        package = self.read(GOOD)[0]
        self.assertEqual(line.of([package]), package)
        self.refused("found none", line.of, [])
        other = locks.Package("tini2", *GOOD.split()[1:4], 1, "cd" * 32)
        self.refused("found tini, tini2", line.of, [package, other])


class Fetching(Case):
    def package(self, content: bytes, size=None, sha256=None):
        pool = self.folder / "mirror/pool"
        pool.mkdir(parents=True, exist_ok=True)
        (pool / "a_1_all.deb").write_bytes(content)
        return locks.Package("a", "1", "debian", "pool/a_1_all.deb", size or len(content),
                             sha256 or sha256_of(pool / "a_1_all.deb"))

    def fetch(self, package):
        mirrors = Mirrors({"debian": f"file://{self.folder}/mirror"}, self.folder / "cache")
        mirrors.fetch([package], Path("packages.lock"), "20260131")
        return mirrors.file_of(package)

    def test_keeps_what_is_right(self):
        package = self.package(b"right")
        self.assertEqual(self.fetch(package).read_bytes(), b"right")
        (self.folder / "mirror/pool/a_1_all.deb").unlink()
        self.fetch(package)

    def test_fetches_again_what_was_changed_in_the_cache(self):
        package = self.package(b"right")
        self.fetch(package).write_bytes(b"wrong")
        self.assertEqual(self.fetch(package).read_bytes(), b"right")

    def test_refuses_and_forgets_what_is_wrong(self):
        for package, words in [
            (self.package(b"content", size=6), "more than the 6 bytes"),
            (self.package(b"content", size=8), "has 7 bytes, expected 8"),
            (self.package(b"content", sha256="00" * 32), f"expected {'00' * 32}"),
        ]:
            with self.subTest(words=words):
                self.refused(words, self.fetch, package)
                self.assertEqual(list((self.folder / "cache").iterdir()), [])

    def test_says_what_to_do_about_a_package_that_is_gone(self):
        package = self.package(b"content")
        (self.folder / "mirror/pool/a_1_all.deb").unlink()
        self.refused("a 1: file://", self.fetch, package)
        self.refused("snapshot.debian.org/archive/debian/20260131T", self.fetch, package)
        self.refused("image/base/lock", self.fetch, package)

    def test_refuses_mirrors_that_it_cannot_read(self):
        self.refused("cdrom:", Mirrors.choose, "cdrom:x", "http://b", None, self.folder)


class Cache(Case):
    def test_a_folder_is_there_whole_or_not_at_all(self):
        target = self.folder / "cache/thing"

        def fails(folder):
            (folder / "part").touch()
            raise Failure("no")

        self.refused("no", made_once, target, fails)
        self.assertFalse(target.exists())
        made_once(target, lambda folder: (folder / "whole").touch())
        made_once(target, fails)
        self.assertEqual([path.name for path in target.iterdir()], ["whole"])
        forget(target.parent, 0)
        self.assertEqual(list(target.parent.iterdir()), [])


def module(info: dict[str, str]) -> bytes:
    """A kernel module with nothing but what it says of itself."""
    content = b"".join(f"{key}={value}\0".encode() for key, value in info.items())
    names = b"\0.modinfo\0.shstrtab\0"
    header = struct.pack("<4s12xHHIQQQIHHHHHH", b"\x7fELF", 1, 62, 1, 0, 0, 64 + len(content) + len(names), 0, 64, 0, 0, 64, 3, 2)
    header = header[:4] + b"\x02\x01\x01" + header[7:]
    sections = bytes(64) \
        + struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(content), 0, 0, 1, 0) \
        + struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(content), len(names), 0, 0, 1, 0)
    return header + content + names + sections


class KernelModules(Case):
    def choose(self, **wanted):
        folder = self.folder / "6.1.0-1-cloud-amd64"
        for name, info in {
            "a": {"depends": ""}, "b-1": {"depends": "a,c"}, "c": {"depends": "", "softdep": "pre: d nowhere post: a"}, "d": {},
            "x": {"depends": "y"}, "y": {"depends": "x"}, "z": {"depends": "gone"},
        }.items():
            path = folder / f"kernel/{name}.ko"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(module(info))
        (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
        lines = {section: [locks.Wanted(name, (), "modules:1") for name in names] for section, names in wanted.items()}
        return modules.choose(folder, lines)

    def test_orders_by_what_is_needed(self):
        chosen = self.choose(initrd=["b_1"], root=["d", "ext4"])
        self.assertEqual(chosen.initrd, ["kernel/a.ko", "kernel/d.ko", "kernel/c.ko", "kernel/b-1.ko"])
        self.assertEqual(chosen.root, [])
        self.assertEqual(chosen.release, "6.1.0-1-cloud-amd64")

    def test_says_what_is_missing(self):
        self.refused("modules:1 names the kernel module nothing", lambda: self.choose(initrd=["nothing"]))
        self.refused("the kernel module z names the kernel module gone", lambda: self.choose(root=["z"]))
        self.refused("x → y → x", lambda: self.choose(root=["x"]))


class Broken(Case):
    def test_broken_files_are_failures(self):
        path = self.folder / "broken"
        for content in (b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + b"\xff" * 100, module({"depends": ""})[:90]):
            path.write_bytes(content)
            self.refused("broken", elf.module_info, path)
        self.refused("broken PE", uki.end_of_sections, b"MZ")
        self.refused("no PE", uki.end_of_sections, b"MZ" + bytes(200))


if __name__ == "__main__":
    unittest.main()
