"""Prompts: what is cleaned, what is cut, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ftfy")

from errors import InvalidInput
from inference.engines.fastwan import params, text
from inference.engines.fastwan.models import Models


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("  a \n\t person  ", "a person"),
        ("a &amp;amp; b", "a & b"),
        ("cafÃ©", "café"),
        ("a\x00b\x1b[31mc\x7f", "abc"),
        ("", ""),
        ("微笑", "微笑"),
    ],
)
def test_prompts_are_cleaned_as_the_published_pipelines_do(said: str, heard: str) -> None:
    assert text.clean(said) == heard


def test_an_empty_prompt_has_one_token_the_end(models: Models) -> None:
    assert text.tokens(models, "").tolist() == [[1]]
    assert text.embed(models, "").shape[1] == 1


def test_a_long_prompt_is_cut_at_512_tokens_with_its_end(models: Models) -> None:
    found = text.tokens(models, "x " * 4000)
    assert found.shape == (1, text.TOKENS)
    assert int(found[0, -1]) == 1


def test_embeddings_are_filled_up_with_zeros(models: Models) -> None:
    found = text.embed(models, "a person")
    filled = text.filled_up(found)
    assert filled.shape[1] == text.TOKENS
    assert not filled[:, found.shape[1] :].any()
    assert filled[:, : found.shape[1]].equal(found)


@pytest.mark.parametrize(
    ("fields", "said", "named"),
    [
        ({"prompt": "x" * 100_000}, {}, "prompt: got '100,000 characters', may be a text of at most 10,000"),
        ({"prompt": 7}, {}, "prompt: got"),
        ({"seed": 2**63}, {}, "seed: got"),
        ({"seed": True}, {}, "seed: got"),
        ({"seed": float("nan")}, {}, "seed: got"),
        ({}, {"fit": "stretch"}, "params.fit: got 'stretch', may be crop or auto"),
        ({}, {"fit": ["crop"]}, "params.fit: got"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict[str, Any], said: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        params.read(fields, said)
    assert named in caught.value.message


def test_what_is_not_said_has_a_default() -> None:
    assert params.read({}, {}) == params.Params(prompt="", seed=42, fit="crop")
    assert params.read({"prompt": None}, {"fit": None}) == params.Params(prompt="", seed=42, fit="crop")
