"""From a prompt to the embeddings that the transformer hears, kept on disk so that a prompt is encoded once."""

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

#: Words pieces that the model was trained with: a longer prompt is cut there, a shorter one is filled up with zeros.
TOKENS = 512
#: Prompts that are kept on disk; the longest take 4 MB each.
KEPT = 500


def clean(prompt: str) -> str:
    """The prompt as the published pipelines clean it: broken encodings mended, control characters dropped, HTML entities
    replaced, white space made single spaces."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def tokens(models: Models, prompt: str) -> Tensor:
    """(1, n) numbers of word pieces, the last one being the end mark; n is at most TOKENS."""
    found = models.tokenizer(prompt, truncation=True, max_length=TOKENS, add_special_tokens=True)["input_ids"]
    if not found:
        raise InvalidInput("prompt: has no word that the tokenizer knows", stage="validation")
    return torch.tensor([found])


@torch.inference_mode()
def embed(models: Models, prompt: str, moved: Callable[[], None] | None = None) -> Tensor:
    """The embeddings (1, n, width) on the CPU in the models' precision, worked out at the prompt's true length: what stands
    after its end does not change them.

    moved() is called before each layer, since a processor may take minutes; what it raises passes through.
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
    """(1, TOKENS, width): the transformer has no mask, the zeros behind a prompt are part of what it hears."""
    return functional.pad(found, (0, 0, 0, TOKENS - found.shape[1]))


class Prompts:
    """Embeddings by prompt in a folder; None keeps none. Any file may be removed at any time by anybody."""

    def __init__(self, folder: Path | None, weights: str) -> None:
        self._folder, self._weights = folder, weights
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):  # by a process that died
                left.unlink(missing_ok=True)

    def known(self, models: Models, prompt: str) -> Tensor | None:
        """The embeddings (1, n, width) of a cleaned prompt, if they are kept."""
        path = self._path(models, prompt)
        if path is None:
            return None
        try:
            found = _read(path, models)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, LookupError, ValueError) as error:
            log.warning("threw away the damaged embeddings %s: %s", path.name, error)
            with suppress(OSError):
                path.unlink()
            return None
        return found

    def made(self, models: Models, prompt: str, moved: Callable[[], None] | None = None) -> Tensor:
        """The same, worked out and kept; moved: see `embed`. Raises EngineFailed if they are no numbers: what was wrong once,
        a card's memory say, must not stay with the prompt."""
        found = embed(models, prompt, moved).contiguous()
        if not bool(torch.isfinite(found).all()):
            damaged = "if it is so again, its weights may be damaged: worker models verify fastwan"
            raise EngineFailed(f"what the text encoder makes of the prompt is not a number; {damaged}")
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
    """What `_keep` has written, if it is that to the bit and what the encoder of these models gives. Raises one of what `known`
    catches."""
    with safetensors.safe_open(path, framework="pt") as file:
        said, found = file.metadata() or {}, file.get_tensor("embeddings")
    width = models.text.config.d_model
    if found.ndim != 3 or found.shape[0] != 1 or not 1 <= found.shape[1] <= TOKENS or found.shape[2] != width:
        raise ValueError(f"their shape is {tuple(found.shape)}, (1, 1 to {TOKENS}, {width}) is right")
    if found.dtype != models.dtype:
        raise ValueError(f"they are {found.dtype}, {models.dtype} is right")
    if said.get("sha256") != _digest(found):
        raise ValueError("their SHA-256 is another one")
    if not bool(torch.isfinite(found).all()):
        raise ValueError("they are not numbers")
    return torch.as_tensor(found)


def _keep(path: Path, found: Tensor) -> None:
    """Write aside and rename. A full disk costs the file, not the job."""
    aside = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file({"embeddings": found}, aside, {"sha256": _digest(found)})
        os.replace(aside, path)
    except (OSError, safetensors.SafetensorError) as error:
        log.warning("the embeddings of a prompt could not be kept: %s", error)
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
