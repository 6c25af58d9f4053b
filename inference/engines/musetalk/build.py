"""Builds an avatar from a video: finds the face, then runs it through encoder and parser once per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from errors import InvalidInput
from inference.engines.musetalk import crops, looking, masks, mouths
from inference.engines.musetalk.avatar import Avatar, Maker
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.params import Params
from inference.engines.musetalk.pictures import Pictures, View
from inference.engines.musetalk.room import Room
from media import video

#: The seed for the posterior samples in parity; the published pipeline uses none.
SEED = 0


def build(
    clip: video.Clip, count: int, models: Models, params: Params, room: Room, report: Callable[[int, int], None]
) -> Avatar:
    """The avatar of the first `count` frames of a clip, or of all if there are fewer.

    report(done, total) is called for every batch, and repeatedly while waiting for decoding; exceptions from it propagate.
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
        with closing(pictures.views([box and masks.square(box) for box in boxes], room.size)) as coming:
            for views in coming:
                first = len(maker)
                add(maker, views, boxes[first : first + len(views)], pictures.size, models, params, room, generator)
                seen(len(boxes) + len(maker))
    return maker.made(whole=pictures.whole)


def check_moves(avatar: Avatar, count: int) -> None:
    """Raises InvalidInput if no mouth would move in the first `count` frames; the message counts the reasons."""
    shown = min(count, len(avatar))
    if not avatar.places[:shown, 2].any():
        faces = int(avatar.boxes[:shown].any(axis=1).sum())
        raise InvalidInput(
            f"no mouth can be moved: of the first {shown} frames (all that the speech needs), {shown - faces} have no face and "
            f"{faces} have a face without skin or lips in its lower half",
            stage="preprocessing",
        )


def add(
    maker: Maker,
    views: Sequence[View | None],
    boxes: Sequence[Box | None],
    size: tuple[int, int],
    models: Models,
    params: Params,
    room: Room,
    generator: torch.Generator | None,
) -> None:
    """Add these frames of this width and height to the avatar; those without a box stay unchanged. A view must contain all of
    the box's square that lies within the frame."""
    faces = [(view, box) for view, box in zip(views, boxes, strict=True) if view is not None and box is not None]
    latents = room.parts(len(faces), lambda part: _latents(models, faces[part], generator))
    masks_ = room.parts(len(faces), lambda part: _masks(models, faces[part], size, params))
    made = zip((one for part in latents for one in part), (one for part in masks_ for one in part), strict=True)
    for box in boxes:
        latent, mask = next(made) if box is not None else (None, None)
        if box is None or latent is None or mask is None:
            maker.pass_by(box)
        else:
            maker.add(box, latent, mask)


def _shown(faces: Sequence[tuple[View, Box]]) -> tuple[list[torch.Tensor], list[Box]]:
    """The views' pixels, and the boxes in their coordinates."""
    return [view.pixels for view, _ in faces], [box.moved(-view.x, -view.y) for view, box in faces]


def _latents(models: Models, faces: Sequence[tuple[View, Box]], generator: torch.Generator | None) -> NDArray[np.float16]:
    """(n, 8, 32, 32) float16; both encoder inputs of all frames in one batch."""
    both = torch.cat(crops.halves(crops.squares(*_shown(faces))))
    masked, whole = mouths.encode(models, both, generator).chunk(2)
    latents: NDArray[np.float16] = crops.together(masked, whole).to(torch.float16).cpu().numpy()
    return latents


def _masks(models: Models, faces: Sequence[tuple[View, Box]], size: tuple[int, int], params: Params) -> list[masks.Mask | None]:
    seen = masks.seen(*_shown(faces), exact=params.parity).to(models.looking_dtype)
    boxes = [box for _, box in faces]
    at = masks.region(boxes)
    classes = masks.classes(models.parser(seen)[:, :, at.y1 : at.y2, at.x1 : at.x2])
    parts = masks.parts(classes, params.parsing_mode, params.left_cheek_width, params.right_cheek_width, at)
    begun = [masks.begun(part, box, *size) for part, box in zip(parts, boxes, strict=True)]
    return [masks.finished(mask) for mask in begun]
