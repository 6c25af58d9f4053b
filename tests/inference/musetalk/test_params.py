"""What a job may say under `params`."""

from __future__ import annotations

from typing import Any

import pytest

from errors import InvalidInput
from inference.engines.musetalk.params import Params, read


def test_nothing_said_is_version_1_5_as_published_but_steadied() -> None:
    assert read({}) == Params()
    assert (read({}).extra_margin, read({}).parsing_mode, read({}).left_cheek_width) == (10, "jaw", 90)
    assert read({}).smooth
    assert read({"face": None}) == Params()


def test_version_1_0_has_defaults_of_its_own_that_the_job_overrules() -> None:
    old = read({"version": 1.0, "extra_margin": 4})
    assert (old.version, old.extra_margin, old.parsing_mode, old.right_cheek_width) == ("1.0", 4, "raw", 80)
    assert read({"version": 1}).version == "1.0"
    assert read({"version": 1.5}).version == read({"version": "1.5"}).version == "1.5"


def test_parity_switches_smoothing_off() -> None:
    assert read({"parity": True}).smooth is False
    assert read({"parity": True, "bbox_shift": 7, "version": "1.0"}).bbox_shift == 7


def test_a_face_is_named_by_size_order_or_place() -> None:
    assert read({"face": "largest"}).face == "largest"
    assert read({"face": 2}).face == 2
    assert read({"face": [0.25, 1]}).face == (0.25, 1.0)


def test_the_workers_fit_holds_where_the_job_says_none() -> None:
    assert read({}, fit="pad").fit == "pad"
    assert read({"fit": "crop"}, fit="pad").fit == "crop"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"bbox_shfit": 3},
            "params.bbox_shfit: unknown parameter; known parameters: bbox_shift, extra_margin, face, fit, left_cheek_width, "
            "loop, no_face, parity, parsing_mode, right_cheek_width, smooth, tail, version",
        ),
        ({"bbox_shift": 51}, "params.bbox_shift: got 51, must be a whole number from -50 to 50"),
        ({"bbox_shift": 1.5}, "params.bbox_shift: got 1.5, must be a whole number from -50 to 50"),
        ({"bbox_shift": True}, "params.bbox_shift: got True, must be a whole number from -50 to 50"),
        ({"extra_margin": -1}, "params.extra_margin: got -1, must be a whole number from 0 to 200"),
        ({"left_cheek_width": 257}, "params.left_cheek_width: got 257, must be a whole number from 0 to 256"),
        ({"parsing_mode": "chin"}, "params.parsing_mode: got 'chin', must be raw or neck or jaw"),
        ({"loop": ["loop"]}, "params.loop: got ['loop'], must be loop or hold or cut"),
        ({"fit": 1}, "params.fit: got 1, must be source or pad or crop"),
        ({"smooth": 1}, "params.smooth: got 1, must be true or false"),
        ({"version": 2}, "params.version: got 2, must be 1.5 or 1.0"),
        ({"version": 10**400}, f"params.version: got 1{'0' * 56}..., must be 1.5 or 1.0"),
        ({"version": True}, "params.version: got True, must be 1.5 or 1.0"),
        (
            {"face": "second"},
            "params.face: got 'second', must be largest, a whole number from 0 to 63 (from the left), "
            "or [x, y] with fractions from 0 to 1",
        ),
        (
            {"parity": True, "smooth": True},
            "params.smooth: got True, must be false with params.parity",
        ),
        (
            {"parity": True, "tail": "keep"},
            "params.tail: got 'keep', must be cut with params.parity",
        ),
        (
            {"parity": True, "no_face": "pass"},
            "params.no_face: got 'pass', must be fail with params.parity",
        ),
        (
            {"parity": True, "bbox_shift": 3},
            "params.bbox_shift: got 3, must be 0 with params.parity and version 1.5, which has no shift",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(params)
    assert refused.value.message == message
    assert refused.value.stage == "validation"


@pytest.mark.parametrize(
    "face", [-1, 64, [0.5], [0.5, 1.1], [0.5, "0.5"], [True, 0], {"x": 1}, [0.1, float("nan")], 0.5, [0, 10**400]]
)
def test_a_face_that_is_none_of_these_is_refused(face: Any) -> None:
    with pytest.raises(InvalidInput, match=r"params\.face: got "):
        read({"face": face})


@pytest.mark.parametrize("name", ["x" * 10_000, "a\nb", "a\x1b[31m", "\u202eabc"])
def test_a_name_is_said_in_one_short_line(name: str) -> None:
    with pytest.raises(InvalidInput, match="unknown parameter; known parameters: bbox_shift") as refused:
        read({name: 1})
    assert len(refused.value.message) < 250
    assert refused.value.message.isprintable()


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidInput) as refused:
        read({"loop": "x" * 10_000})
    assert len(refused.value.message) < 200
