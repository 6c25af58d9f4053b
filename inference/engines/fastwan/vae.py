"""Between pictures and latents: the image that is encoded, and the latents that become pictures while they are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from inference.engines.fastwan import tiny
from inference.engines.fastwan.decoder import PICTURES, PIXELS, Decoder, Past, parts, spread
from inference.engines.fastwan.models import Models
from media.still import Picture

#: Tiles are this many latent pixels long at the most, and overlap by so many.
TILE, OVERLAP = 32, 4


@torch.inference_mode()
def encode(models: Models, picture: Picture) -> Tensor:
    """The latent frame (1, 48, 1, h / 16, w / 16) float32 of a picture (h, w, 3): the middle of what it may be, normalised."""
    pixels = torch.from_numpy(picture).to(models.device).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with _in_32_bits():
        found = models.vae.encode(pixels).latent_dist.mode()
    mean, std = spread(models.vae, models.device)
    return (found - mean) / std


@contextmanager
def _in_32_bits() -> Iterator[None]:
    """Convolutions of numbers in 32 bits use all of them. Left to itself torch has cuDNN take 19 (TF32). Not by the older
    `allow_tf32`: where one of the two ways has been used, the other one raises."""
    convolution = torch.backends.cudnn.conv
    before, convolution.fp32_precision = convolution.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolution.fp32_precision = before


def pictures(
    models: Models, decoder: Decoder | tiny.Decoder, latents: Tensor, chunk: int, tiled: bool, decoded: Callable[[int], None]
) -> Iterator[Picture]:
    """The video's pictures (h, w, 3) uint8 RGB from normalised latents (1, 48, t, h / 16, w / 16), `chunk` latent frames at
    a time. decoded(latent frames done) is called after each part; what it raises passes through.

    On a card the next part is under way while the pictures of the last one are taken. Tiled: one tile after the other, each
    through all of the video, so that no picture is ready before the last tile.
    """
    scaled = decoder.scaled(latents.to(models.device))
    if tiled:
        yield from _tiled(decoder, scaled, chunk, decoded)
        return
    past = Past()
    coming: tuple[Callable[[], Tensor], int] | None = None
    for part in parts(latents.shape[2], chunk):
        begun = _begun(decoder.part(scaled[:, :, part], past))
        if coming is not None:
            yield from _taken(*coming, decoded)
        coming = begun, part.stop
    if coming is not None:
        yield from _taken(*coming, decoded)


def _taken(finish: Callable[[], Tensor], frames: int, decoded: Callable[[int], None]) -> Iterator[Picture]:
    made = finish()
    decoded(frames)
    yield from made.numpy()


@torch.inference_mode()
def _begun(made: Tensor) -> Callable[[], Tensor]:
    """Begin to bring pictures (1, 3, n, h, w), -1 to 1, to the host as (n, h, w, 3) uint8; what is returned waits for them."""
    pixels = _bytes(made[0].float()).permute(1, 2, 3, 0).contiguous()
    if pixels.device.type != "cuda":
        return lambda: pixels
    host = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(pixels, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # who waits leaves the processor to the encoder
    arrived.record(torch.cuda.current_stream(pixels.device))

    def finish() -> Tensor:
        arrived.synchronize()
        return host

    return finish


def _tiled(decoder: Decoder | tiny.Decoder, latents: Tensor, chunk: int, decoded: Callable[[int], None]) -> Iterator[Picture]:
    """The pictures put together on the host from tiles whose edges fade into one another."""
    frames, height, width = latents.shape[2], *(side * PIXELS for side in latents.shape[-2:])
    total = torch.zeros((PICTURES * (frames - 1) + 1, height, width, 3))
    weights = torch.zeros((height, width, 1))
    tiles = [(rows, columns) for rows in _spans(latents.shape[-2]) for columns in _spans(latents.shape[-1])]
    for number, (rows, columns) in enumerate(tiles):
        past, first = Past(), 0
        place = _pixels(rows), _pixels(columns)
        weight = torch.outer(*(_fade(each.stop - each.start) for each in place))[..., None]
        weights[place] += weight
        for part in parts(frames, chunk):
            made = decoder.part(latents[:, :, part, rows, columns], past)[0].float().permute(1, 2, 3, 0).cpu()
            total[first : first + len(made), place[0], place[1]] += made * weight
            first += len(made)
            decoded((number * frames + part.stop) // len(tiles))
    for picture in total:
        yield _bytes(picture / weights).numpy()


def _bytes(pixels: Tensor) -> Tensor:
    """uint8 of -1 to 1; what it is given is changed."""
    return pixels.clamp_(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def _pixels(span: slice) -> slice:
    return slice(span.start * PIXELS, span.stop * PIXELS)


def _fade(length: int) -> Tensor:
    """Weights along a side: rising over the overlap at both ends, never 0."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32) / (OVERLAP * PIXELS)
    return torch.minimum(ramp, ramp.flip(0)).clamp_max(1)


def _spans(length: int) -> list[slice]:
    """As few spans of TILE as cover a side with OVERLAP between them, spread evenly."""
    if length <= TILE:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    firsts = np.linspace(0, length - TILE, count).round().astype(int)
    return [slice(int(first), int(first) + TILE) for first in firsts]
