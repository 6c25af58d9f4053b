"""From a prompt to the embeddings for the transformer, cached on disk so that each prompt is encoded once."""

from __future__ import annotations

import hashlib
import html
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ftfy
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from errors import EngineFailed, InvalidInput
from inference.engines.fastwan.models import Models

log = logging.getLogger(__name__)

#: Tokens that the model was trained with: a longer prompt is truncated, a shorter one is padded with zeros.
TOKENS = 512
#: Prompts cached on disk; the longest take 4 MB each.
KEPT = 500


def clean(prompt: str) -> str:
    """The prompt cleaned as in the published pipelines: broken encodings repaired, control characters dropped, HTML entities
    replaced, white space collapsed to single spaces."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def tokens(models: Models, prompt: str) -> Tensor:
    """(1, n) token ids, the last one being the end token; n is at most TOKENS."""
    found = models.tokenizer(prompt, truncation=True, max_length=TOKENS, add_special_tokens=True)["input_ids"]
    if not found:
        raise InvalidInput("prompt: contains no word that the tokenizer knows", stage="validation")
    return torch.tensor([found])


@torch.inference_mode()
def embed(models: Models, prompt: str, moved: Callable[[], None] | None = None) -> Tensor:
    """The embeddings (1, n, width) on the CPU in the models' precision, computed at the prompt's true length: padding would
    not change them.

    moved() is called before each layer, since a CPU may take minutes; what it raises propagates.
    """
    numbers = tokens(models, prompt).to(models.text_device)
    layers = models.text.encoder.block if moved is not None else ()
    told = [layer.register_forward_pre_hook(lambda *_: moved and moved()) for layer in layers]
    try:
        found = models.text(input_ids=numbers, attention_mask=torch.ones_like(numbers)).last_hidden_state
    finally:
        for each in told:
            each.remove()
    return found.to("cpu", models.dtype)


def filled_up(found: Tensor) -> Tensor:
    """(1, TOKENS, width): the transformer has no mask, so the zeros after a prompt are part of its input."""
    return functional.pad(found, (0, 0, 0, TOKENS - found.shape[1]))


class Prompts:
    """A disk cache of embeddings by prompt; no folder, no cache. Any file may be removed at any time by anyone."""

    def __init__(self, folder: Path | None, weights: str) -> None:
        self._folder, self._weights = folder, weights
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):  # left by a process that died
                left.unlink(missing_ok=True)

    def known(self, models: Models, prompt: str) -> Tensor | None:
        """The embeddings (1, n, width) of a cleaned prompt, if they are cached."""
        path = self._path(models, prompt)
        if path is None:
            return None
        try:
            found = _read(path, models)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, LookupError, ValueError) as error:
            log.warning("discarded the damaged cache entry %s: %s", path.name, error)
            with suppress(OSError):
                path.unlink()
            return None
        return found

    def made(self, models: Models, prompt: str, moved: Callable[[], None] | None = None) -> Tensor:
        """The same, computed and cached; moved: see `embed`. Raises EngineFailed if they are not finite: a one-time fault,
        in GPU memory for example, must not be cached."""
        found = embed(models, prompt, moved).contiguous()
        if not bool(torch.isfinite(found).all()):
            damaged = "if this happens again, its weights may be damaged: worker models verify fastwan"
            raise EngineFailed(f"the text encoder's output for the prompt is not a number; {damaged}")
        path = self._path(models, prompt)
        if path is not None:
            _keep(path, found)
        return found

    def _path(self, models: Models, prompt: str) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(f"{self._weights}\n{models.plan.text}\n{models.dtype}\n{prompt}".encode()).hexdigest()
        return self._folder / f"{name[:40]}.prompt"


def _read(path: Path, models: Models) -> Tensor:
    """A cache entry written by `_keep`, if it is intact and matches these models' encoder. Raises one of the errors
    that `known` catches."""
    with safetensors.safe_open(path, framework="pt") as file:
        said, found = file.metadata() or {}, file.get_tensor("embeddings")
    width = models.text.config.d_model
    if found.ndim != 3 or found.shape[0] != 1 or not 1 <= found.shape[1] <= TOKENS or found.shape[2] != width:
        raise ValueError(f"the shape is {tuple(found.shape)}, expected (1, 1 to {TOKENS}, {width})")
    if found.dtype != models.dtype:
        raise ValueError(f"the dtype is {found.dtype}, expected {models.dtype}")
    if said.get("sha256") != _digest(found):
        raise ValueError("the SHA-256 does not match")
    if not bool(torch.isfinite(found).all()):
        raise ValueError("the values are not finite")
    return torch.as_tensor(found)


def _keep(path: Path, found: Tensor) -> None:
    """Write to a temporary file and rename it. A full disk costs the cache entry, not the job."""
    aside = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file({"embeddings": found}, aside, {"sha256": _digest(found)})
        os.replace(aside, path)
    except (OSError, safetensors.SafetensorError) as error:
        log.warning("could not write a prompt's cache entry: %s", error)
    for old in (aside, *sorted(path.parent.glob("*.prompt"), key=_age)[:-KEPT]):
        with suppress(OSError):
            old.unlink()


def _digest(found: Tensor) -> str:
    return hashlib.sha256(found.contiguous().view(torch.uint8).numpy()).hexdigest()


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
