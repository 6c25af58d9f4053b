"""What a field of a JSON body may be: in words for people, and as a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class InvalidBody(Exception):
    """`fields`: what is wrong with each field, and what it may be."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {message}" for name, message in fields.items()))
        self.fields = fields


@dataclass(frozen=True)
class Field:
    """What a field may be: in words, and as a test."""

    rule: str
    accepts: Callable[[Any], bool]
    required: bool = True


def checked_body(body: Any, shape: Mapping[str, Field]) -> dict[str, Any]:
    """The body, if every field is as it must be. Raises InvalidBody, naming every field that is not."""
    if not isinstance(body, dict):
        raise InvalidBody({"": f"the body must be a JSON object with {', '.join(shape)}"})
    wrong = {}
    for name, field in shape.items():
        if name not in body:
            if field.required:
                wrong[name] = f"is missing; {field.rule}"
        elif not field.accepts(body[name]):
            wrong[name] = f"{json.dumps(body[name])[:100]}: {field.rule}"
    if wrong:
        raise InvalidBody(wrong)
    return body


def text(longest: int, *, empty: bool = False, null: bool = False, required: bool = True) -> Field:
    least = 0 if empty else 1
    rule = f"must be a text of {least} to {longest} characters" + (" or null" if null else "")
    return Field(rule, lambda v: (null and v is None) or (isinstance(v, str) and least <= len(v) <= longest), required)


def matching(pattern: str, example: str) -> Field:
    return Field(f"must look like {example}", lambda v: isinstance(v, str) and bool(re.fullmatch(pattern, v)), False)


def one_of(*words: str) -> Field:
    return Field(f"must be {' or '.join(words)}", lambda v: v in words)


def whole(least: int, most: int) -> Field:
    return Field(f"must be a whole number, {least} to {most}", lambda v: type(v) is int and least <= v <= most, False)


def number(least: float, most: float, *, required: bool = False) -> Field:
    return Field(f"must be a number, {least:g} to {most:g}", lambda v: _is_number(v) and least <= v <= most, required)


def object_(*, null: bool = False) -> Field:
    rule = "must be an object" + (" or null" if null else "")
    return Field(rule, lambda v: (null and v is None) or isinstance(v, dict), False)


def link(*, null: bool = False, required: bool = True) -> Field:
    rule = "must be an http or https link" + (" or null" if null else "")
    return Field(rule, lambda v: (null and v is None) or _is_link(v), required)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_link(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 8192:
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
