"""Images to latents and back: encoding the image, and decoding latents while earlier frames go to the video encoder."""

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

#: The largest side of a tile, and the overlap of tiles, in latent pixels.
TILE, OVERLAP = 32, 4


@torch.inference_mode()
def encode(models: Models, picture: Picture) -> Tensor:
    """The latent frame (1, 48, 1, h / 16, w / 16) float32 of an image (h, w, 3): the mode of its distribution, normalised."""
    pixels = torch.from_numpy(picture).to(models.device).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with _in_32_bits():
        found = models.vae.encode(pixels).latent_dist.mode()
    mean, std = spread(models.vae, models.device)
    return (found - mean) / std


@contextmanager
def _in_32_bits() -> Iterator[None]:
    """Run fp32 convolutions in full precision; by default torch lets cuDNN use TF32 (19 bits). Not set by the older
    `allow_tf32`: once one of the two APIs has been used, the other raises."""
    convolution = torch.backends.cudnn.conv
    before, convolution.fp32_precision = convolution.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolution.fp32_precision = before


def pictures(
    models: Models, decoder: Decoder | tiny.Decoder, latents: Tensor, chunk: int, tiled: bool, decoded: Callable[[int], None]
) -> Iterator[Picture]:
    """The video's frames (h, w, 3) uint8 RGB from normalised latents (1, 48, t, h / 16, w / 16), `chunk` latent frames at a
    time. decoded(latent frames done) is called after each part; what it raises propagates.

    On a GPU the next part is decoded while the frames of the last one are consumed. Tiled: one tile after the other, each for
    the whole video, so no frame is ready before the last tile.
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
    """Start copying frames (1, 3, n, h, w), -1 to 1, to the host as (n, h, w, 3) uint8; the returned function waits."""
    pixels = _bytes(made[0].float()).permute(1, 2, 3, 0).contiguous()
    if pixels.device.type != "cuda":
        return lambda: pixels
    host = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(pixels, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # waiting blocks, which leaves the CPU to the encoder
    arrived.record(torch.cuda.current_stream(pixels.device))

    def finish() -> Tensor:
        arrived.synchronize()
        return host

    return finish


def _tiled(decoder: Decoder | tiny.Decoder, latents: Tensor, chunk: int, decoded: Callable[[int], None]) -> Iterator[Picture]:
    """The frames, assembled on the host from tiles whose edges are blended."""
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
    """-1 … 1 to uint8; overwrites its input."""
    return pixels.clamp_(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def _pixels(span: slice) -> slice:
    return slice(span.start * PIXELS, span.stop * PIXELS)


def _fade(length: int) -> Tensor:
    """Blending weights along a side: rising over the overlap from both ends, never 0."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32) / (OVERLAP * PIXELS)
    return torch.minimum(ramp, ramp.flip(0)).clamp_max(1)


def _spans(length: int) -> list[slice]:
    """The fewest spans of TILE that cover a side with at least OVERLAP between them, evenly spaced."""
    if length <= TILE:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    firsts = np.linspace(0, length - TILE, count).round().astype(int)
    return [slice(int(first), int(first) + TILE) for first in firsts]
