"""Prompts: what is cleaned, what is cut, what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ftfy")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import UMT5Config, UMT5EncoderModel  # noqa: E402

from errors import Cancelled, EngineFailed, InvalidInput  # noqa: E402
from inference.engines.fastwan import params, text, wide  # noqa: E402
from inference.engines.fastwan.models import Models  # noqa: E402
from jobqueue import intake  # noqa: E402
from tests.fakes import fastwan  # noqa: E402


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


def test_weights_of_16_bits_that_are_widened_give_what_32_bits_give() -> None:
    halved = UMT5EncoderModel(UMT5Config(**fastwan.TEXT)).eval().to(torch.bfloat16)
    exact, numbers = copy.deepcopy(halved).float(), torch.arange(3, 40)[None]
    expected = exact(input_ids=numbers).last_hidden_state
    plain = halved(input_ids=numbers).last_hidden_state
    kept = {each.data_ptr() for each in halved.parameters() if each.ndim > 1}
    made = wide.widened(halved)(input_ids=numbers).last_hidden_state
    assert made.dtype == torch.float32
    assert (made - expected).norm() < 1e-5 * expected.norm() < (plain - expected).norm()
    linear = [each for each in halved.modules() if isinstance(each, wide.LinearWide)]
    assert len(linear) > 7
    assert {each.rows.data_ptr() for each in linear} <= kept  # nothing of the weights was copied


def test_who_waits_for_an_encoding_hears_of_each_layer_and_may_end_it(models: Models) -> None:
    heard: list[int] = []
    expected = text.embed(models, "a person")
    assert text.embed(models, "a person", lambda: heard.append(1)).equal(expected)
    assert len(heard) == len(models.text.encoder.block)

    def ends() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        text.embed(models, "a person", ends)
    assert text.embed(models, "a person").equal(expected)


@pytest.mark.parametrize(
    ("fields", "said", "named"),
    [
        ({"prompt": "x" * 100_000}, {}, "prompt: got '100,000 characters', must be text of at most 10,000"),
        ({"prompt": 7}, {}, "prompt: got"),
        ({"seed": 2**63}, {}, "seed: got"),
        ({"seed": True}, {}, "seed: got"),
        ({"seed": float("nan")}, {}, "seed: got"),
        ({}, {"fit": "stretch"}, "params.fit: got 'stretch', must be crop or auto"),
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


def test_steps_that_nobody_named_are_not_said_to_have_no_effect() -> None:
    usual = intake.new_job(
        {"musetalk_job_id": "a", "image_url": "https://a.example/i.png", "prompt": ""}, "fastwan", "local"
    ).inputs
    assert params.effects(usual, {})["without_effect"] == []
    assert params.effects({**usual, "steps": 8}, {})["without_effect"] == ["steps=8: the model is distilled to 3 steps"]


def test_a_sender_of_many_unknown_parameters_is_told_of_some() -> None:
    lines = params.effects({}, {"fit": "crop", "x" * 1000: 1, **{f"name{number}": 1 for number in range(30_000)}})[
        "without_effect"
    ]
    assert len(lines) == 21
    assert lines[0] == f"params.{'x' * 40}: unknown parameter; the only one is fit"
    assert lines[-1] == "params: and 29981 more"


# ---- what is kept ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoiled",
    [
        torch.zeros(1, 5, 7),
        torch.zeros(1, 600, fastwan.WIDTH),
        torch.zeros(1, 0, fastwan.WIDTH),
        torch.zeros(3, 5, fastwan.WIDTH),
        torch.zeros(5, fastwan.WIDTH),
        torch.zeros(1, 5, fastwan.WIDTH, dtype=torch.int64),
        torch.zeros(1, 5, fastwan.WIDTH, dtype=torch.bfloat16),
        torch.full((1, 5, fastwan.WIDTH), float("nan")),
    ],
    ids=lambda spoiled: f"{tuple(spoiled.shape)} {spoiled.dtype}",
)
def test_kept_embeddings_that_no_encoder_of_ours_gives_are_thrown_away(models: Models, tmp_path: Path, spoiled: Any) -> None:
    prompts = text.Prompts(tmp_path, "")
    prompts.made(models, "a person")
    (kept,) = tmp_path.iterdir()
    text._keep(kept, spoiled)
    assert prompts.known(models, "a person") is None
    assert not kept.exists()


def test_kept_embeddings_whose_bytes_were_changed_are_thrown_away(models: Models, tmp_path: Path) -> None:
    prompts = text.Prompts(tmp_path, "")
    made = prompts.made(models, "a person")
    (kept,) = tmp_path.iterdir()
    assert torch.equal(prompts.known(models, "a person"), made)
    content = kept.read_bytes()
    kept.write_bytes(content[:-8] + bytes(8))
    assert prompts.known(models, "a person") is None
    kept.write_bytes(content)
    save_file(load_file(kept), kept)  # which tells no hash
    assert prompts.known(models, "a person") is None
    assert not kept.exists()


def test_a_folder_in_the_place_of_kept_embeddings_costs_no_job(models: Models, tmp_path: Path) -> None:
    prompts = text.Prompts(tmp_path, "")
    prompts.made(models, "a person")
    (kept,) = tmp_path.iterdir()
    kept.unlink()
    kept.mkdir()
    assert prompts.known(models, "a person") is None
    assert prompts.made(models, "a person").equal(text.embed(models, "a person"))
    assert prompts.known(models, "a person") is None


def test_embeddings_that_are_no_numbers_are_an_error_and_not_kept(models: Models, tmp_path: Path) -> None:
    broken = replace(models, text=copy.deepcopy(models.text))
    broken.text.encoder.final_layer_norm.weight.data.fill_(float("nan"))
    prompts = text.Prompts(tmp_path, "")
    with pytest.raises(EngineFailed, match=r"text encoder.* not a number; .* worker models verify fastwan"):
        prompts.made(broken, "a person")
    assert list(tmp_path.iterdir()) == []
    assert prompts.made(models, "a person").isfinite().all()
