"""A job's fields are checked one by one: what is wrong is named with what is allowed, and nothing wrong is repaired."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobqueue import intake

CLIP = {"musetalk_job_id": "j1", "image_url": "https://a.example/i.png", "prompt": "a fox"}
FACE = {"musetalk_job_id": "j1", "video_url": "https://a.example/v.mp4", "audio_url": "https://a.example/a.wav"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("prompt", None, "is missing; must be a text, which may be empty"),
        ("prompt", ["a", "fox"], "is a list; must be a text of at most 10000 characters"),
        ("prompt", "x" * 10_001, "is 10001 characters long; at most 10000"),
        ("prompt", "half \ud800", "contains half a character (a lone surrogate); must be a text"),
        ("negative_prompt", {}, "is an object; must be a text of at most 10000 characters"),
        ("num_frames", 0, "is 0; must be a whole number from 1 to 241"),
        ("num_frames", 10_000, "is 10000; must be a whole number from 1 to 241"),
        ("num_frames", 121.5, "is 121.5; must be a whole number from 1 to 241"),
        ("num_frames", True, "is true; must be a whole number from 1 to 241"),
        ("num_frames", "121", 'is "121"; must be a whole number from 1 to 241'),
        ("width", -720, "is -720; must be a whole number from 64 to 1536"),
        ("height", 63, "is 63; must be a whole number from 64 to 1536"),
        ("height", 10**30, "is 1000000000000000000000000000000; must be a whole number from 64 to 1536"),
        ("steps", 0, "is 0; must be a whole number from 1 to 100"),
        ("seed", 2**63, "is 9223372036854775808; must be a whole number from -9223372036854775808 to 9223372036854775807"),
        ("seed", math.nan, "is NaN; must be a whole number from -9223372036854775808 to 9223372036854775807"),
        ("guidance_scale", math.nan, "is NaN; must be a number from 0 to 100"),
        ("guidance_scale", math.inf, "is Infinity; must be a number from 0 to 100"),
        ("guidance_scale", -1, "is -1; must be a number from 0 to 100"),
        ("guidance_scale", "x" * 100, 'is "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...; must be a number from 0 to 100'),
        ("params", {"a": {"b": math.nan}}, "contains NaN or Infinity, which are not JSON; must be an object, like {}"),
        ("image_url", "ftp://a.example/i.png", "must be an http:// or https:// link"),
    ],
)
def test_what_a_fastwan_field_may_not_be(field: str, value: Any, says: str) -> None:
    assert intake.problems({**CLIP, field: value}, "fastwan") == {field: says}


@pytest.mark.parametrize(
    "prompt",
    ["", "  ", "one\ntwo\tthree", "\x00\x07\x1b[31m\x7f\x85", "猫が歩く 🐈\u200d⬛", "e\u0301\ufeff", "x" * 10_000],
)
def test_any_text_is_a_prompt(prompt: str) -> None:
    new = intake.new_job({**CLIP, "prompt": prompt}, "fastwan", "queue")
    assert (new.error, new.inputs["prompt"]) == (None, prompt)


@pytest.mark.parametrize(("source", "size"), [("main", (720, 1280)), ("buffer", (720, 1280)), ("queue", (480, 832))])
def test_a_fastwan_job_gets_the_defaults_of_the_way_it_came(source: str, size: tuple[int, int]) -> None:
    new = intake.new_job({**CLIP, "width": None, "steps": None}, "fastwan", source)
    assert (new.inputs["width"], new.inputs["height"]) == size
    chosen = {name: new.inputs[name] for name in ("num_frames", "steps", "seed", "guidance_scale")}
    assert chosen == {"num_frames": 121, "steps": 4, "seed": 42, "guidance_scale": 1.0}


def test_what_was_chosen_is_kept() -> None:
    chosen = {"num_frames": 49, "width": 832, "height": 480, "steps": 8, "seed": -1, "guidance_scale": 0, "negative_prompt": ""}
    new = intake.new_job({**CLIP, **chosen, "params": {"fit": "auto"}, "unknown": 1}, "fastwan", "main")
    assert new.inputs == {**chosen, "image_url": CLIP["image_url"], "prompt": "a fox"}
    assert new.params == {"fit": "auto"}


@pytest.mark.parametrize(
    ("said", "kept"), [("b-1", "b-1"), (7, "7"), ("half \ud800", None), ("", None), (True, None), ({"a": 1}, None)]
)
def test_an_id_of_a_buffer_that_could_not_be_sent_back_is_not_kept(said: Any, kept: str | None) -> None:
    assert intake.new_job({**FACE, "buffer_job_id": said}, "musetalk", "queue").buffer_job_id == kept


def test_a_job_that_is_wrong_keeps_nothing_of_what_it_held() -> None:
    new = intake.new_job({**CLIP, "steps": 0, "params": {"a": 1}}, "fastwan", "main")
    assert new.error is not None
    assert (new.inputs, new.params) == ({}, {})
    assert new.error["message"] == "steps: is 0; must be a whole number from 1 to 100"


@pytest.mark.parametrize(("engine", "job"), [("fastwan", FACE), ("musetalk", CLIP)])
def test_a_job_of_the_other_engine_is_not_taken_for_one_with_fields_missing(engine: str, job: dict[str, Any]) -> None:
    ((_, says),) = intake.problems(job, engine).items()
    assert says.startswith(f"this worker serves {engine} jobs")


@pytest.mark.parametrize("job_id", [".", "..", ".hidden", "a/b", "a b", "", "x" * 201])
def test_an_id_that_could_not_be_a_files_name_is_refused(job_id: str) -> None:
    assert "musetalk_job_id" in intake.problems({**FACE, "musetalk_job_id": job_id}, "musetalk")
