"""What the recipe reads: locks, lists, mirrors, ELF files."""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from recipe import command, elf, locks, modules, python, uki
from recipe.common import BASE, Failure, forget, made_once, sha256_of, sweep
from recipe.mirrors import Mirrors
from recipe.programs import Source
from recipe.root import Root
from recipe.unpack import Unpacked

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


    def test_a_folder_is_on_the_disk_before_it_is_there(self):
        target, synced = self.folder / "cache/thing", []
        with mock.patch("recipe.common.os.sync", lambda: synced.append(target.exists())):
            made_once(target, lambda folder: None)
        self.assertEqual(synced, [False])

    def test_what_was_left_behind_is_swept(self):
        left = [self.folder / name for name in ("base/.image-1", "base/unpacked/.making-1", "base/vendor/.making-2")]
        kept = [self.folder / name for name in ("base/unpacked/whole", "base/programs/thing")]
        for folder in left + kept:
            (folder / "inside").mkdir(parents=True)
        partial = self.folder / "packages/.abc.1"
        partial.parent.mkdir()
        partial.touch()
        sweep(self.folder)
        self.assertTrue(all(path.exists() for path in (*left, *kept, partial)))  # a build that goes on may need it
        for path in (*left, *kept, partial):
            os.utime(path, (0, 0))
        sweep(self.folder)
        self.assertEqual([path for path in (*left, *kept, partial) if path.exists()], kept)

    def test_a_fresh_build_shares_nothing_but_packages(self):
        (self.folder / "base/builders/old").mkdir(parents=True)
        (self.folder / "packages").mkdir()
        (self.folder / "packages/a.deb").touch()
        for arguments, same in ((["--fresh"], False), ([], True)):
            args = command._build_arguments(["--output", "x", "--cache", str(self.folder), *arguments])
            with command._cache(args) as cache:
                self.assertTrue((cache / "packages/a.deb").is_file())
                self.assertEqual((cache / "base/builders/old").exists(), same)
        self.assertEqual([path.name for path in (self.folder / "base").iterdir()], ["builders"])
        self.assertTrue((self.folder / "packages/a.deb").is_file())


class Signals(Case):
    """What is left behind when a build is ended from outside."""

    BUILD = """
import sys
import time
from pathlib import Path
from recipe import common
from recipe.common import end_in_order, run_whole, scratch
remove = common.remove_tree
common.remove_tree = lambda path: (time.sleep(0.5), remove(path))  # there is much to remove
end_in_order()
with scratch(Path(sys.argv[1]), ".image-") as work:
    run_whole(["sh", "-c", f"for second in $(seq 500); do sleep 0.01; echo >>{work.parent}/alive; touch {work}/file; done 2>&- & wait"])
"""

    def test_nothing_is_left_and_nothing_goes_on(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number.name):
                build = subprocess.Popen([sys.executable, "-B", "-c", self.BUILD, str(self.folder)],
                                         env={**os.environ, "PYTHONPATH": str(BASE)})
                self.until(lambda: list(self.folder.glob(".image-*/file")))
                for _ in range(3):  # impatient people
                    build.send_signal(number)
                    time.sleep(0.1)
                self.assertEqual(build.wait(30), 128 + number)
                alive = (self.folder / "alive").stat().st_size
                time.sleep(0.2)
                self.assertEqual((self.folder / "alive").stat().st_size, alive)
                self.assertEqual(list(self.folder.glob(".*")), [])

    def until(self, there):
        end = time.monotonic() + 30
        while not there():
            self.assertLess(time.monotonic(), end, "it did not begin")
            time.sleep(0.01)


class Checkouts(Case):
    """Which files are taken from a checkout, and what an image says of it."""

    def setUp(self):
        super().setUp()
        self.checkout = self.folder.resolve() / "checkout"
        self.base = self.checkout / "image/base"
        (self.base / "root/etc").mkdir(parents=True)
        (self.base / "root/etc/hosts").write_text("127.0.0.1 localhost\n")
        (self.base / "root/etc/resolv.conf").symlink_to("/run/not-there")
        (self.checkout / "Cargo.toml").write_text('version = "1.2.3"\n')
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")
        self.commit = self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", "-C", self.checkout, *who, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout

    def read(self, base=None):
        for name in ("recipe.programs.BASE", "recipe.root.BASE"):
            patch = mock.patch(name, base or self.base)
            patch.start()
            self.addCleanup(patch.stop)
        return Source.read(self.checkout, False)

    def fixed(self, source):
        target = self.folder / "tree"
        root = Root(target, Unpacked([], Mirrors({}, self.folder), self.folder))
        root.add_fixed(source)
        return sorted(root.tree.names)

    def test_files_that_git_ignores_are_not_in_the_image(self):
        (self.folder / "ignored").write_text("*.swp\n")
        self.git("config", "core.excludesFile", str(self.folder / "ignored"))
        (self.base / "root/etc/.hosts.swp").write_text("secret")
        source = self.read()
        self.assertEqual(source.commit, self.commit)
        self.assertEqual(self.fixed(source), ["/etc/hosts", "/etc/resolv.conf"])

    def test_files_that_are_new_are_said_whatever_git_shows(self):
        self.git("config", "status.showUntrackedFiles", "no")
        (self.base / "root/etc/new").touch()
        source = self.read()
        self.assertEqual(source.commit, f"{self.commit}-modified")
        self.assertEqual(self.fixed(source), ["/etc/hosts", "/etc/new", "/etc/resolv.conf"])

    def test_an_image_is_of_no_commit_whose_recipe_did_not_make_it(self):
        other = self.folder / "elsewhere/image/base"
        (other / "root/etc").mkdir(parents=True)
        (other / "root/etc/other").touch()
        source = self.read(other)
        self.assertEqual(source.commit, f"{self.commit}-modified")
        self.assertEqual(self.fixed(source), ["/etc/other"])


class Statements(Case):
    def test_all_packages_are_named_once(self):
        same, other = (locks.Package("libc6", version, "debian", "pool/x.deb", 1, "ab" * 32) for version in "12")
        root = Root(self.folder / "tree", Unpacked([], Mirrors({}, self.folder), self.folder))
        said = root.add_statements({}, [other, same, same])
        self.assertEqual(said, "".join(f"libc6={version} sha256:{'ab' * 32}\n" for version in "12"))
        self.assertEqual(root.tree.path("/usr/share/aicert/packages.txt").read_text(), said)


class PythonImage(Case):
    def test_packages_on_another_file_system_are_copied(self):
        file, target = self.folder / "file", self.folder / "target"
        file.write_bytes(b"package")
        with mock.patch.object(Path, "hardlink_to", side_effect=OSError(18, "Invalid cross-device link")):
            python._link_or_copy(file, target)
        self.assertEqual(target.read_bytes(), b"package")
        self.assertFalse(os.path.samefile(file, target))


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
