"""A job's `params`: parsing, defaults and validation. Unknown parameters are rejected, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from errors import InvalidInput
from inference.engines.musetalk.cycle import Loop, Tail

Version = Literal["1.5", "1.0"]
ParsingMode = Literal["raw", "neck", "jaw"]
Fit = Literal["source", "pad", "crop"]
NoFace = Literal["fail", "pass"]

#: `largest`, an index from the left in the first frame with faces, or a point as fractions of width and height.
Face = Literal["largest"] | int | tuple[float, float]

#: The limit of bbox_shift, in pixels. Only a few pixels are useful.
MAX_SHIFT = 50
MAX_MARGIN = 200
#: The parsing map is 512 wide; a cheek reaches from its middle to at most its edge.
MAX_CHEEK = 256
MAX_FACES = 63

#: The defaults of version 1.0 where they differ.
OF_VERSION_1_0: dict[str, Any] = {
    "extra_margin": 0,
    "parsing_mode": "raw",
    "left_cheek_width": 80,
    "right_cheek_width": 80,
}


@dataclass(frozen=True, kw_only=True)
class Params:
    """The defaults are those of version 1.5."""

    version: Version = "1.5"
    bbox_shift: int = 0  # moves the nose's point down, in pixels: more opens the mouth, less closes it
    extra_margin: int = 10  # how far the box reaches below the chin, in pixels
    parsing_mode: ParsingMode = "jaw"  # which parts of the face are pasted
    left_cheek_width: int = 90  # how far from the middle the skin may grow in the picture's left half, of 256
    right_cheek_width: int = 90
    face: Face = "largest"
    smooth: bool = True  # smooth boxes over time
    loop: Loop = "loop"  # what to do if the speech is longer than the video
    tail: Tail = "cut"  # what to do if the video is longer than the speech
    no_face: NoFace = "fail"  # what to do if no mouth would move in the whole job
    fit: Fit = "source"  # whether the output has the job's aspect ratio and resolution
    parity: bool = False  # everything as the published pipeline does it, faults included where they can be seen


def read(params: dict[str, Any], fit: Fit = "source") -> Params:
    """The job's `params`, validated; `fit` is the default if the job sets none. Raises InvalidInput, naming the parameter.

    None means not set.
    """
    said = {name: value for name, value in params.items() if value is not None}
    for name in said:
        if name not in READERS:
            shown = name if len(name) <= 40 and name.isprintable() else repr(name)[:40] + "..."
            raise InvalidInput(
                f"params.{shown}: unknown parameter; known parameters: {', '.join(sorted(READERS))}", stage="validation"
            )
    read_ = {name: READERS[name](name, value) for name, value in said.items()}
    others = OF_VERSION_1_0 if read_.get("version") == "1.0" else {}
    if read_.get("parity"):
        _check_parity(read_)
        others = {**others, "smooth": False}
    return Params(**{"fit": fit, **others, **read_})


def _check_parity(said: dict[str, Any]) -> None:
    """Parameters that contradict parity are rejected, not overridden."""
    if said.get("smooth"):
        _refuse("smooth", True, "false with params.parity")
    for name, only, why in (("face", "largest", ", which cannot choose a face"), ("tail", "cut", ""), ("no_face", "fail", "")):
        if said.get(name, only) != only:
            _refuse(name, said[name], f"{only} with params.parity{why}")
    if said.get("bbox_shift") and said.get("version") != "1.0":
        _refuse("bbox_shift", said["bbox_shift"], "0 with params.parity and version 1.5, which has no shift")


def _refuse(name: str, value: Any, allowed: str) -> NoReturn:
    got = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    raise InvalidInput(f"params.{name}: got {got}, must be {allowed}", stage="validation")


def _whole(least: int, most: int) -> Callable[[str, Any], int]:
    def read_whole(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            _refuse(name, value, f"a whole number from {least} to {most}")
        return value

    return read_whole


def _one_of(names: Any) -> Callable[[str, Any], str]:
    def read_name(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in get_args(names):
            _refuse(name, value, " or ".join(get_args(names)))
        return value

    return read_name


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _refuse(name, value, "true or false")
    return value


def _version(name: str, value: Any) -> str:
    """Clients often send it as a number."""
    text = "1.0" if value == 1 and not isinstance(value, bool) else str(value) if value == 1.5 else value
    if text not in get_args(Version):
        _refuse(name, value, " or ".join(get_args(Version)))
    return str(text)


def _face(name: str, value: Any) -> Face:
    allowed = f"largest, a whole number from 0 to {MAX_FACES} (from the left), or [x, y] with fractions from 0 to 1"
    if value == "largest":
        return "largest"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_FACES:
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(_share(one) for one in value):
        return float(value[0]), float(value[1])
    _refuse(name, value, allowed)


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


READERS: dict[str, Callable[[str, Any], Any]] = {
    "version": _version,
    "bbox_shift": _whole(-MAX_SHIFT, MAX_SHIFT),
    "extra_margin": _whole(0, MAX_MARGIN),
    "parsing_mode": _one_of(ParsingMode),
    "left_cheek_width": _whole(0, MAX_CHEEK),
    "right_cheek_width": _whole(0, MAX_CHEEK),
    "face": _face,
    "smooth": _yes_or_no,
    "loop": _one_of(Loop),
    "tail": _one_of(Tail),
    "no_face": _one_of(NoFace),
    "fit": _one_of(Fit),
    "parity": _yes_or_no,
}
