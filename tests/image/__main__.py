"""`docker/check`: build the image, put it on the bench, and say what holds."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.image import checks
from tests.image.bench import Bench
from tests.image.tool import BUILD_S, Cannot, find

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "docker" / "Dockerfile"
EXIT_FAILED, EXIT_CANNOT = 1, 3


def main() -> int:
    options = _parse()
    base = options.base or _default_base()
    try:
        tool = find(options.tool, options.image or base, options.build_option, options.run_option, pull=options.pull)
    except Cannot as reason:
        print(f"the image cannot be tried out here: {reason}", file=sys.stderr)
        return EXIT_CANNOT
    bench = Bench(tool, options.image or "gpu-video-worker:check", options.env, options.video)
    if options.image is None and not _build(bench, base):
        return EXIT_FAILED
    for check in checks.ALL:
        try:
            check(bench)
        except (RuntimeError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            bench.say(False, str(check.__doc__), f"{type(error).__name__}: {error}")
    print(f"{bench.failures} do not hold" if bench.failures else "all hold")
    return EXIT_FAILED if bench.failures else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="docker/check",
        description="Builds the image and checks from outside what is promised of it: read-only root file system, 64 MB of "
        "shared memory, no network, no program as root. One line a check. Needs docker or podman.",
        epilog="Exit codes: 0 all hold, 1 some do not, 2 wrong usage, 3 containers cannot be run here.",
    )
    add = parser.add_argument
    add("--image", help="an image that is there already; none is built")
    add(
        "--base",
        help="the base image: any Debian or Ubuntu with Python 3.11 or later, venv and pip  [default: the Dockerfile's]",
    )
    add("--pull", action="store_true", help="download the base image if it is not there")
    add("--tool", choices=["docker", "podman"], help="what to use  [default: what can run a container]")
    add("--build-option", action="append", default=[], metavar="=OPTION", help="another option of `build`; may be repeated")
    add("--run-option", action="append", default=[], metavar="=OPTION", help="another option of `run`; may be repeated")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for the worker; may be repeated")
    add("--video", type=Path, metavar="FILE", help="where to put the demo's video, to look at")
    return parser.parse_args()


def _default_base() -> str:
    found = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{DOCKERFILE}: names no base image")
    return found[1]


def _build(bench: Bench, base: str) -> bool:
    """Build the image of this checkout; says how long it took, or what went wrong."""
    began_s = time.monotonic()
    arguments = (f"--build-arg=BASE={base}", f"--tag={bench.image}", f"--file={DOCKERFILE}", str(CHECKOUT))
    done = bench.tool("build", *bench.tool.build, *arguments, timeout_s=BUILD_S)
    size = bench.tool("image", "inspect", "--format={{.Size}}", bench.image).stdout.strip()
    found = f"{time.monotonic() - began_s:.0f} s, {int(size) // 1_000_000} MB with its base" if done.returncode == 0 else ""
    bench.say(done.returncode == 0, "the image is built", found or (done.stdout + done.stderr)[-3000:])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
