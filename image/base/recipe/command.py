"""The commands: `image/base/build`, `image/base/lock` and `image/base/compare`."""

import argparse
import contextlib
import sys
from pathlib import Path

from . import formats, python, relock
from .builder import Builder
from .common import BASE, Failure, default_cache, end_in_order, scratch, start_in_order, sweep
from .compare import compare as differences
from .image import Image, Variant
from .locks import Package, lock_date, read_lock
from .mirrors import Mirrors
from .programs import Programs, Source


def build(arguments: list[str]) -> int:
    """Builds the image."""
    return _guarded("build", lambda: _build(_build_arguments(arguments)))


def lock(arguments: list[str]) -> int:
    """Writes the locks anew."""
    parser = argparse.ArgumentParser(prog="image/base/lock", description="Locks the newest packages for aicert's base image.",
                                     epilog="docs/images.md says when to run it.")
    _shared_arguments(parser)

    def work() -> int:
        args = parser.parse_args(arguments)
        relock.lock(_mirrors(args, args.cache), args.cache)
        return 0

    return _guarded("lock", work)


def compare(arguments: list[str]) -> int:
    """Compares two images."""
    parser = argparse.ArgumentParser(prog="image/base/compare", description="Says in which parts two images differ.",
                                     epilog="Exit status: 0 if they are the same, 1 if not, 2 if that cannot be said.")
    parser.add_argument("one", type=Path, help="a raw image")
    parser.add_argument("two", type=Path, help="another one")
    _shared_arguments(parser)

    def work() -> int:
        args = parser.parse_args(arguments)
        for path in (args.one, args.two):
            if not path.is_file():
                raise Failure(f"there is no file {path}")
        mirrors = _mirrors(args, args.cache)
        builder = Builder.prepare(_fetched(BASE / "builder.lock", mirrors), mirrors, args.cache)
        found = differences(args.one, args.two, builder, args.cache)
        print("".join(f"{line}\n" for line in found), end="")
        return 1 if found else 0

    return _guarded("compare", work, 2)


def _guarded(name: str, work, failed: int = 1) -> int:
    start_in_order()
    end_in_order()
    try:
        return work()
    except Failure as failure:
        print(f"image/base/{name}: error: {failure}", file=sys.stderr)
        if failure.help:
            print(f"help: {failure.help}", file=sys.stderr)
        return failure.status if failure.status != 1 else failed
    except OSError as error:
        print(f"image/base/{name}: error: {error}", file=sys.stderr)
        return failed


def _shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror [default: the one that apt on this machine uses]")
    parser.add_argument("--security-mirror", metavar="URL", help="mirror of Debian's security updates [default: likewise]")
    parser.add_argument("--cache", metavar="DIR", type=lambda path: Path(path).absolute(), default=default_cache(),
                        help="where packages and intermediate results are kept [default: %(default)s]")


def _build_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="image/base/build", description="Builds aicert's base image, reproducibly.",
                                     epilog="docs/images.md describes the image.")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="the folder to write; it must not exist")
    parser.add_argument("--format", metavar="LIST", default="raw", help="raw, vhd, qcow2, separated by commas [default: raw]")
    parser.add_argument("--variant", choices=["gpu"], help="add NVIDIA's driver and container toolkit; not tried yet")
    parser.add_argument("--nvidia-repository", metavar="URL", help="where NVIDIA's packages are")
    parser.add_argument("--nvidia-lock", metavar="FILE", type=Path,
                        help="which packages these are: as packages.lock, archive `nvidia`")
    parser.add_argument("--source", metavar="DIR", type=Path, default=BASE.parent.parent,
                        help="the checkout to build programs from; an image from another than this recipe's says `-modified` "
                             "[default: this recipe's]")
    _shared_arguments(parser)
    parser.add_argument("--fresh", action="store_true",
                        help="take nothing from the cache but packages, whose hashes are checked; make everything else anew")
    parser.add_argument("--aicert", metavar="FILE", type=Path, help="measure with this `aicert` [default: build one]")
    others = parser.add_argument_group("for tests; images that are made so are no releases")
    others.add_argument("--server", metavar="FILE", type=Path, help="take this aicert-server")
    others.add_argument("--init", metavar="FILE", type=Path, help="take this aicert-init, a static binary")
    others.add_argument("--add-to-command-line", metavar="WORD", action="append", default=[],
                        help="add to the kernel's command line")
    parsed = parser.parse_args(arguments)
    parsed.format = [name for name in parsed.format.split(",") if name]
    if any([parsed.variant, parsed.nvidia_repository, parsed.nvidia_lock]) \
            and not all([parsed.variant, parsed.nvidia_repository, parsed.nvidia_lock]):
        parser.error("--variant gpu, --nvidia-repository and --nvidia-lock belong together")
    unknown = [name for name in parsed.format if name not in formats.FORMATS]
    if unknown:
        parser.error(f"unknown format {unknown[0]!r}: there are {', '.join(formats.FORMATS)}")
    return parsed


def _mirrors(args: argparse.Namespace, cache: Path) -> Mirrors:
    return Mirrors.choose(args.mirror, args.security_mirror, getattr(args, "nvidia_repository", None), cache)


def _fetched(path: Path, mirrors: Mirrors) -> list[Package]:
    """The packages of a lock, which are there when this returns."""
    packages = read_lock(path)
    mirrors.fetch(packages, path, lock_date(path))
    return packages


@contextlib.contextmanager
def _cache(args: argparse.Namespace):
    """Where the intermediate results of this build are."""
    sweep(args.cache)
    if not args.fresh:
        yield args.cache
        return
    with scratch(args.cache / "base", ".fresh-") as folder:
        packages = args.cache / "packages"
        packages.mkdir(exist_ok=True)
        (folder / "packages").symlink_to(packages)
        yield folder


def _build(args: argparse.Namespace) -> int:
    output = args.output.absolute()
    if output.exists():
        raise Failure(f"{output} exists already", "name a folder that does not; it is written whole or not at all")
    given = {"aicert-server": args.server, "aicert-init": args.init, "aicert": args.aicert}
    for path in given.values():
        if path and not path.is_file():
            raise Failure(f"there is no file {path}")
    source = Source.read(args.source.resolve(), bool(args.server or args.init or args.add_to_command_line))
    with _cache(args) as cache:
        mirrors = _mirrors(args, cache)
        builder = Builder.prepare(_fetched(BASE / "builder.lock", mirrors), mirrors, cache)
        packages = _fetched(BASE / "packages.lock", mirrors)
        variant = Variant("", [])
        if args.variant:
            variant = Variant(args.variant, _fetched(args.nvidia_lock, mirrors))
        container = python.build(_fetched(BASE / "python.lock", mirrors), mirrors, builder, cache)
        with scratch(cache / "base", ".image-") as work:
            programs = _programs(given, source, builder, cache, work)
            image = Image(source, variant, builder, programs, packages, mirrors, cache, work)
            image.build(container, args.add_to_command_line)
            image.publish(output, args.format)
    return 0


def _programs(given: dict[str, Path | None], source: Source, builder: Builder, cache: Path, work: Path) -> dict[str, Path]:
    """aicert's own programs: those that were given, and the others from source."""
    missing = [name for name, path in given.items() if path is None]
    if missing:
        compiler = Programs(source, builder, cache)
        for name in missing:
            compiler.build(name, work / name)
    return {name: path or work / name for name, path in given.items()}
