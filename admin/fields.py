"""What the form for a job offers, as data: the fields of each shape of job, and the parameters of each engine.

It only offers: what is allowed `jobqueue.intake` and the engine decide. tests/admin/test_submit.py holds both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MEDIA = {
    "video_url": ("Video of a face", "video/*,image/*"),
    "audio_url": ("Speech", "audio/*,video/*"),
    "image_url": ("Picture", "image/*"),
}


@dataclass(frozen=True, kw_only=True)
class Field:
    name: str
    label: str
    kind: Literal["text", "long", "whole", "choice", "yes"] = "text"
    #: What holds if nothing is entered, in words.
    default: str = ""
    choices: tuple[str, ...] = ()


OWN: dict[str, tuple[Field, ...]] = {
    "musetalk": (
        Field(name="aspect_ratio", label="Aspect ratio", default="1:1"),
        Field(name="resolution", label="Resolution", default="512x512"),
    ),
    "fastwan": (  # not those that the distilled model takes and does not heed: steps, guidance_scale, negative_prompt
        Field(name="prompt", label="Prompt", kind="long"),
        Field(name="num_frames", label="Frames", kind="whole", default="121"),
        Field(name="width", label="Width, pixels", kind="whole", default="480"),
        Field(name="height", label="Height, pixels", kind="whole", default="832"),
        Field(name="seed", label="Seed", kind="whole", default="42"),
    ),
}

PARAMS: dict[str, tuple[Field, ...]] = {
    "musetalk": (
        Field(name="version", label="Version", kind="choice", default="1.5", choices=("1.5", "1.0")),
        Field(name="fit", label="Fit", kind="choice", default="OUTPUT_FIT", choices=("source", "pad", "crop")),
        Field(name="loop", label="If the speech is longer", kind="choice", default="loop", choices=("loop", "hold", "cut")),
        Field(name="tail", label="If the video is longer", kind="choice", default="cut", choices=("cut", "keep")),
        Field(name="no_face", label="If no mouth would move", kind="choice", default="fail", choices=("fail", "pass")),
        Field(name="parsing_mode", label="Pasted area", kind="choice", default="jaw", choices=("raw", "neck", "jaw")),
        Field(name="face", label="Face", default="largest"),
        Field(name="bbox_shift", label="Mouth offset, pixels down", kind="whole", default="0"),
        Field(name="extra_margin", label="Margin below the chin, pixels", kind="whole", default="10"),
        Field(name="left_cheek_width", label="Left cheek", kind="whole", default="90"),
        Field(name="right_cheek_width", label="Right cheek", kind="whole", default="90"),
        Field(name="smooth", label="Smooth boxes", kind="yes", default="yes"),
        Field(name="parity", label="Exactly as published, bugs included", kind="yes", default="no"),
    ),
    "fastwan": (Field(name="fit", label="Size", kind="choice", default="crop", choices=("crop", "auto")),),
}


def read(offered: Sequence[Field], form: Mapping[str, str]) -> dict[str, Any]:
    """The fields that were filled in, with the types that a job has. Raises ValueError by field."""
    found = {field.name: form.get(field.name, "").strip() for field in offered}
    return {field.name: _value(field, found[field.name]) for field in offered if found[field.name]}


def _value(field: Field, text: str) -> Any:
    if field.kind == "yes":
        return text == "yes"
    if field.name == "face" and text.isdigit():
        return int(text)
    if field.kind != "whole":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{field.name}: got {text[:40]!r}; must be a whole number") from None
