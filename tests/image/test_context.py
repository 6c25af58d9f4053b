"""What goes into the image: the programs and what they are made of, and nothing that happens to lie beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parents[2]
RULES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def lock(name: str) -> set[str]:
    return set((ROOT / "requirements" / f"{name}.txt").read_text().split("\n")) - {""}


def test_only_what_is_named_goes_into_the_image() -> None:
    assert RULES[0] == "*"
    allowed = {rule[1:] for rule in RULES if rule.startswith("!")}
    assert not [name for name in allowed if name.startswith((".", "data", "models", "tests"))]
    missing = [name for name in allowed if not list(ROOT.glob(name))]
    assert not missing, f".dockerignore lets in what is not there: {missing}"


def test_every_package_of_the_house_is_in_the_image() -> None:
    packages = {name for name in FLOORS if (ROOT / name).is_dir()}
    missing = [name for name in sorted(packages) if f"!{name}" not in RULES]
    assert not missing, f".dockerignore leaves out {missing}"
    assert "!*.py" in RULES


@pytest.mark.parametrize("name", ["engine", "fleet"])
def test_the_packages_of_an_extra_are_the_worker_s_and_more(name: str) -> None:
    other = sorted(lock("worker") - lock(name))
    assert not other, f"requirements/{name}.txt has other versions of {other}; make it anew (CONTRIBUTING.md)"


def test_the_base_image_is_a_version() -> None:
    bases = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 1
    assert re.search(r":\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", bases[0]), bases[0]
