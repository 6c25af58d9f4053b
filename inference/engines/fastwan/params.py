"""A job's fields other than its image, and which of them have an effect. The metrics list those that have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, get_args

from errors import InvalidInput
from inference.engines.fastwan.sampling import TIMES
from inference.engines.fastwan.shape import Fit

#: The longest prompt, in characters; the model sees about the first 2,000 of them (512 tokens).
MAX_PROMPT = 10_000
#: What intake fills in for a job that names no steps.
UNSAID_STEPS = 4
#: Unknown parameters that are listed, and characters of each name: the metrics are sent with every report.
MAX_NAMES, MAX_NAME = 20, 40


@dataclass(frozen=True, kw_only=True)
class Params:
    """fit: `crop` crops the image to the requested size; `auto` keeps its aspect ratio and makes a video of about as many
    pixels."""

    prompt: str
    seed: int
    fit: Fit = "crop"


def read(fields: dict[str, Any], params: dict[str, Any]) -> Params:
    """A job's prompt, seed and `params`, validated. None means the default. Raises InvalidInput, which names the field."""
    fit: Any = "crop" if params.get("fit") is None else params["fit"]
    if fit not in ("crop", "auto"):
        _refuse("params.fit", fit, " or ".join(get_args(Fit)))
    prompt = fields.get("prompt") or ""
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
        what = f"{len(prompt):,} characters" if isinstance(prompt, str) else repr(prompt)[:60]
        _refuse("prompt", what, f"text of at most {MAX_PROMPT:,} characters")
    seed = fields.get("seed", 42)
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        _refuse("seed", repr(seed)[:60], "a 64-bit integer")
    return Params(prompt=prompt, seed=seed, fit=fit)


def effects(fields: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """For the metrics: what was really done where a job asked for something that the distilled model does not support. The
    older workers accepted such fields too, so they do not fail a job."""
    told = {"steps_used": len(TIMES), "guidance_scale_used": 1.0, "negative_prompt_used": False}
    ignored = []
    if fields.get("steps") not in (None, len(TIMES), UNSAID_STEPS):
        ignored.append(f"steps={fields['steps']}: the model is distilled to {len(TIMES)} steps")
    if fields.get("guidance_scale") not in (None, 1, 1.0):
        ignored.append(f"guidance_scale={fields['guidance_scale']}: the model is distilled to run without guidance")
    if fields.get("negative_prompt"):
        ignored.append("negative_prompt: has no effect without guidance")
    unknown = [name for name in params if name != "fit"]
    ignored += [f"params.{name:.{MAX_NAME}}: unknown parameter; the only one is fit" for name in unknown[:MAX_NAMES]]
    ignored += [f"params: and {len(unknown) - MAX_NAMES} more"] if len(unknown) > MAX_NAMES else []
    return {**told, "without_effect": ignored}


def _refuse(name: str, got: Any, allowed: str) -> NoReturn:
    raise InvalidInput(f"{name}: got {got!r:.80}, must be {allowed}", stage="validation")
