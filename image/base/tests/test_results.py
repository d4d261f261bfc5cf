"""What the recipe makes: archives, disks, and the checks of a root file system."""

import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from recipe import check, elf, formats, initrd
from recipe.common import Failure
from recipe.root import Tree

MIB = 1 << 20
SERVER = "/usr/lib/aicert/aicert-server"
PROGRAM = Path("/bin/true")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Initrd(Case):
    def test_is_an_archive_that_others_read(self):
        archive = initrd.Archive()
        archive.device("dev/console", 5, 1)
        archive.file("usr/lib/a", b"content", program=True)
        archive.file("usr/lib/b", b"")
        entries = list(self.entries(archive.finish()))
        self.assertEqual([(name, oct(mode), content) for name, mode, _, content in entries], [
            ("dev", "0o40755", b""), ("dev/console", "0o20600", b""), ("usr", "0o40755", b""), ("usr/lib", "0o40755", b""),
            ("usr/lib/a", "0o100755", b"content"), ("usr/lib/b", "0o100644", b""), ("TRAILER!!!", "0o0", b"")])
        self.assertEqual(entries[1][2], (5, 1))

    def entries(self, archive: bytes):
        at = 0
        while at < len(archive):
            self.assertEqual(archive[at:at + 6], b"070701")
            fields = [int(archive[at + 6 + 8 * index:at + 14 + 8 * index], 16) for index in range(13)]
            name = archive[at + 110:at + 110 + fields[11] - 1].decode()
            start = (at + 110 + fields[11] + 3) & ~3
            yield name, fields[1], (fields[9], fields[10]), archive[start:start + fields[6]]
            at = (start + fields[6] + 3) & ~3


class Formats(Case):
    def setUp(self):
        super().setUp()
        self.raw = self.folder / "disk.raw"
        with open(self.raw, "wb") as file:
            for offset in (0, 70_000, 3 * MIB, 40 * MIB):
                file.seek(offset)
                file.write(os.urandom(1000))
            file.truncate(41 * MIB)

    def test_a_vhd_is_the_disk_and_a_footer(self):
        target = self.folder / "disk.vhd"
        formats.vhd(self.raw, target)
        content = target.read_bytes()
        self.assertEqual(content[:-512], self.raw.read_bytes())
        footer = content[-512:]
        self.assertEqual(footer[:8], b"conectix")
        stored = struct.unpack(">I", footer[64:68])[0]
        self.assertEqual(stored, ~sum(footer[:64] + footer[68:]) & 0xFFFFFFFF)
        self.assertEqual(struct.unpack(">QQ", footer[40:56]), (41 * MIB, 41 * MIB))

    def test_a_vhd_of_broken_size_is_refused(self):
        os.truncate(self.raw, 41 * MIB + 512)
        with self.assertRaisesRegex(Failure, "whole MiB"):
            formats.vhd(self.raw, self.folder / "disk.vhd")

    def test_the_same_disk_gives_the_same_files(self):
        for name in ("vhd", "qcow2"):
            one, two = self.folder / f"one.{name}", self.folder / f"two.{name}"
            formats.FORMATS[name](self.raw, one)
            formats.FORMATS[name](self.raw, two)
            self.assertEqual(one.read_bytes(), two.read_bytes())

    @unittest.skipUnless(shutil.which("qemu-img"), "qemu-img is not installed")
    def test_qemu_reads_them(self):
        for name, form in (("vhd", "vpc"), ("qcow2", "qcow2")):
            target = self.folder / f"disk.{name}"
            formats.FORMATS[name](self.raw, target)
            compare = ["qemu-img", "compare", "-f", "raw", "-F", form, self.raw, target]
            self.assertEqual(subprocess.run(compare, stdout=subprocess.DEVNULL, check=False).returncode, 0, name)
        done = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", self.folder / "disk.qcow2"], check=False)
        self.assertEqual(done.returncode, 0)
        self.assertLess((self.folder / "disk.qcow2").stat().st_size, MIB)


class Checks(Case):
    """The recipe's last look at the root file system."""

    def setUp(self):
        super().setUp()
        self.root = self.folder / "root"
        self.root.mkdir()
        self.tree = Tree(self.root)
        for name in ("lib", "lib64", "bin", "sbin"):
            self.tree.add_folder(f"/usr/{name}")
            (self.root / name).symlink_to(f"usr/{name}")
        self.tree.add_text("/etc/passwd", "root:*:0:0:root:/:/nonexistent\n")
        self.tree.add(SERVER, PROGRAM)
        needs = elf.read(PROGRAM)
        for name in [needs.interpreter, *(f"/lib/x86_64-linux-gnu/{library}" for library in needs.needed)]:
            self.tree.add(f"/usr{name}", Path(name).resolve())

    def faults(self) -> str:
        with self.assertRaises(Failure) as caught:
            check.check(self.root, SERVER)
        return str(caught.exception)

    def test_a_good_one_passes(self):
        check.check(self.root, SERVER)

    def test_shells_and_ways_in_are_found(self):
        for name in ("bash", "sh", "dash", "busybox", "perl5.36.0", "python3.11", "su", "login", "sshd", "dpkg", "docker", "agetty"):
            with self.subTest(name=name):
                self.tree.add(f"/usr/bin/{name}", PROGRAM)
                self.assertIn(f"/usr/bin/{name} is a program with the name of a shell", self.faults())
                self.tree.path(f"/usr/bin/{name}").unlink()

    def test_rights_are_looked_at(self):
        self.tree.path(SERVER).chmod(0o4755)
        self.assertIn(f"{SERVER} runs with the rights of its owner", self.faults())
        self.tree.path(SERVER).chmod(0o757)
        self.assertIn(f"everybody may write {SERVER}", self.faults())

    def test_scripts_are_found(self):
        self.tree.add_text("/usr/bin/tool", "#!/bin/sh\n")
        self.assertIn("/usr/bin/tool is a script", self.faults())

    def test_links_must_lead_somewhere(self):
        (self.root / "usr/bin/a").symlink_to("b")
        (self.root / "usr/bin/b").symlink_to("a")
        (self.root / "etc/resolv.conf").symlink_to("/run/resolv.conf")
        faults = self.faults()
        self.assertIn("/usr/bin/a points to b, which is not there", faults)
        self.assertNotIn("resolv.conf", faults)

    def test_accounts_are_looked_at(self):
        for line in ("root::0:0:root:/:/nonexistent", "root:*:0:0:root:/:/bin/sh", "root:$6$x:0:0:root:/:/nonexistent"):
            self.tree.path("/etc/passwd").write_text(line + "\n")
            self.assertIn("lets somebody log in", self.faults())
        self.tree.add_text("/etc/shadow", "")
        self.assertIn("/etc/shadow is there", self.faults())

    def test_programs_must_find_their_libraries(self):
        library = next(self.root.glob("usr/lib/x86_64-linux-gnu/libc.so.6"))
        library.unlink()
        self.assertIn(f"{SERVER} needs the library libc.so.6, which is not there", self.faults())
        # A library that lacks what the program needs: libm has other versions than libc.
        shutil.copyfile("/lib/x86_64-linux-gnu/libm.so.6", library)
        self.assertRegex(self.faults(), f"{SERVER} needs libc.so.6 with .*GLIBC_2.34")

    def test_a_file_comes_from_one_place(self):
        with self.assertRaisesRegex(Failure, "from two places"):
            self.tree.add(SERVER, PROGRAM)


if __name__ == "__main__":
    unittest.main()
