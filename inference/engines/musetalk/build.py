"""Makes an avatar of a video: looks for the face, then puts each picture's face through the encoder and the parser, once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from inference.engines.musetalk import crops, looking, masks, mouths
from inference.engines.musetalk.avatar import Avatar, Maker
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.params import Params
from inference.engines.musetalk.pictures import Pictures
from inference.engines.musetalk.room import Room
from media import video

#: What the published pipeline's samples are drawn from, in parity; it has no seed of its own.
SEED = 0


def build(
    clip: video.Clip, count: int, models: Models, params: Params, room: Room, report: Callable[[int, int], None]
) -> Avatar:
    """The avatar of the first `count` pictures of a clip, or of all if there are fewer.

    report(done, total) is called for every batch, and often while nothing is decoded yet; what it raises passes through.
    Raises InvalidInput if there is no face, OutOfMemory.
    """
    total = 2 * max(1, min(count, clip.frames_about))
    done = 0

    def seen(number: int) -> None:
        nonlocal done
        done = number
        report(min(done, total), total)

    pictures = Pictures(clip, count, models.device, lambda: report(min(done, total), total))
    with torch.inference_mode():
        boxes = looking.look(pictures, models, params, clip.rate, room, seen)
        maker, generator = Maker(), torch.Generator(models.device).manual_seed(SEED) if params.parity else None
        for batch in pictures.batches(room.size):
            known = boxes[batch.first : batch.first + len(batch)]
            with_face = [at for at, box in enumerate(known) if box is not None]
            chosen = batch.seen[with_face] if len(with_face) < len(batch) else batch.seen
            faces = [box for box in known if box is not None]
            _add(maker, chosen, known, faces, models, params, room, generator)
            seen(len(boxes) + len(maker))
    return maker.made(whole=pictures.whole)


def _add(
    maker: Maker,
    chosen: torch.Tensor,
    known: list[Box | None],
    faces: list[Box],
    models: Models,
    params: Params,
    room: Room,
    generator: torch.Generator | None,
) -> None:
    latents = room.parts(len(faces), lambda part: _latents(models, chosen[part], faces[part], generator))
    alphas = room.parts(len(faces), lambda part: _masks(models, chosen[part], faces[part], params))
    made = zip((one for part in latents for one in part), (one for part in alphas for one in part), strict=True)
    for box in known:
        if box is None:
            maker.pass_by()
            continue
        latent, mask = next(made)
        if mask is None:
            maker.pass_by()
        else:
            maker.add(box, latent, mask)


def _latents(models: Models, pictures: torch.Tensor, faces: list[Box], generator: torch.Generator | None) -> np.ndarray:
    """(n, 8, 32, 32) float16; both halves of all pictures in one batch."""
    both = torch.cat(crops.halves(crops.squares(pictures, faces)))
    masked, whole = mouths.encode(models, both, generator).chunk(2)
    latents: np.ndarray = crops.together(masked, whole).to(torch.float16).cpu().numpy()
    return latents


def _masks(models: Models, pictures: torch.Tensor, faces: list[Box], params: Params) -> list[masks.Mask | None]:
    height, width = pictures.shape[1:3]
    seen = masks.seen(pictures, faces).to(models.looking_dtype)
    classes = masks.classes(models.parser(seen))
    parts = masks.parts(classes, params.parsing_mode, params.left_cheek_width, params.right_cheek_width)
    return [masks.build(part, box, width, height) for part, box in zip(parts, faces, strict=True)]
