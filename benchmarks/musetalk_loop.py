"""The steps of MuseTalk's published script, written plainly as a baseline: strictly sequential.

Frames to PNG files, one frame at a time through the face networks and twice through the encoder, batches of eight mouths, then
for every output frame the parser, a mask in Pillow and OpenCV, a full-frame paste and another PNG file, and two encodes. It
gets the boxes that ours found, so that both produce the same frames. `disk=False` leaves out the files and the second encode.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from PIL import Image

from inference.engines.musetalk import crops, faces, landmarks, masks, speech
from inference.engines.musetalk.avatar import Avatar
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.models import Models
from media import audio, video

#: Output frames per batch.
BATCH = 8


@dataclass
class Run:
    """Seconds per stage, and the first frames before encoding."""

    frames: int = 0
    first_s: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    kept: list[np.ndarray[Any, Any]] = field(default_factory=list)

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.stages[stage] += time.monotonic() - began


@torch.inference_mode()
def run(
    models: Models, clip: video.Clip, sound: Path, avatar: Avatar, folder: Path, *, disk: bool, keep: int = 0
) -> tuple[Run, float]:
    """One job; also returns its seconds."""
    began, done = time.monotonic(), Run()
    pictures = _extract(clip, folder, done, disk)
    latents = [_look_and_encode(models, picture, avatar.box(number), done) for number, picture in enumerate(pictures)]
    with done.at("speech"):
        samples = list(audio.mono(sound, speech.SAMPLE_RATE_HZ))
        states = speech.hidden(samples, models.whisper)
        count = speech.frames(sum(map(len, samples)), clip.rate)
        heard = speech.windows(states, range(count), clip.rate)
    cycle = [*range(len(pictures)), *reversed(range(len(pictures)))]
    made: list[np.ndarray[Any, Any]] = []
    for first in range(0, count, BATCH):
        numbers = [cycle[frame % len(cycle)] for frame in range(first, min(first + BATCH, count))]
        made += _speak(models, torch.cat([latents[number] for number in numbers]), heard[first : first + len(numbers)], done)
    frames = []
    for frame, face in enumerate(made):
        number = cycle[frame % len(cycle)]
        finished = _paste(models, pictures[number], face, avatar.box(number), done)
        done.first_s = done.first_s or time.monotonic() - began
        done.kept += [finished] if frame < keep else []
        if disk:
            with done.at("files"):
                cv2.imwrite(str(folder / f"out-{frame:08d}.png"), finished[:, :, ::-1])
        else:
            frames.append(finished)
    done.frames = count
    with done.at("encode"):
        _encode(folder, frames, count, clip.rate, sound, disk)
    return done, time.monotonic() - began


def _extract(clip: video.Clip, folder: Path, done: Run, disk: bool) -> list[np.ndarray[Any, Any]]:
    with done.at("decode"):
        pictures: list[Any] = list(video.pictures(clip))
    if disk:
        with done.at("files"):
            for number, picture in enumerate(pictures):
                cv2.imwrite(str(folder / f"in-{number:08d}.png"), picture[:, :, ::-1])
            names = [str(folder / f"in-{number:08d}.png") for number in range(len(pictures))]
            pictures = [np.ascontiguousarray(np.asarray(cv2.imread(name))[:, :, ::-1]) for name in names]
    return pictures


def _look_and_encode(models: Models, picture: np.ndarray[Any, Any], box: Box, done: Run) -> torch.Tensor:
    """What the networks find is discarded: the box is given."""
    with done.at("face"):
        one = torch.from_numpy(picture)[None].to(models.device)
        landmarks.locate(models.pose, one, None, models.looking_dtype)
        faces.detect(models.detector, one, None, models.looking_dtype)
    with done.at("encode faces"):
        cut = cv2.resize(picture[box.y1 : box.y2, box.x1 : box.x2], (256, 256), interpolation=cv2.INTER_LANCZOS4)
        halves = crops.halves(torch.from_numpy(cut)[None])
        both = [models.vae.encode(half.to(models.device, models.dtype)).latent_dist.mean for half in halves]
        latents: torch.Tensor = crops.together(*both) * models.vae.config.scaling_factor
        return latents


def _speak(models: Models, latents: torch.Tensor, heard: torch.Tensor, done: Run) -> list[np.ndarray[Any, Any]]:
    with done.at("networks"):
        placed = heard.to(models.device, models.dtype) + speech.positions().to(models.device, models.dtype)
        made = models.unet(latents, placed) / models.vae.config.scaling_factor
        shares = (models.vae.decode(made).sample / 2 + 0.5).clamp(0, 1).cpu()
        pictures = (shares.permute(0, 2, 3, 1).float().numpy() * 255).round().astype(np.uint8)
    return list(pictures)


def _paste(
    models: Models, picture: np.ndarray[Any, Any], face: np.ndarray[Any, Any], box: Box, done: Run
) -> np.ndarray[Any, Any]:
    with done.at("composite"):
        whole = Image.fromarray(copy.deepcopy(picture))
        around = masks.square(box)
        square = whole.crop((around.x1, around.y1, around.x2, around.y2))
    with done.at("parser"):
        small = np.asarray(square.resize((512, 512), Image.Resampling.BILINEAR), np.float32) / 255
        seen = (small - np.array(masks.MEAN, np.float32)) / np.array(masks.DEVIATION, np.float32)
        given = torch.from_numpy(seen).permute(2, 0, 1)[None].to(models.device, models.looking_dtype)
        classes = models.parser(given)[0].float().cpu().numpy().argmax(0)
    with done.at("composite"):
        part = masks.parts(torch.from_numpy(classes.astype(np.uint8))[None], "jaw")[0].numpy()
        side = around.width
        grown = Image.fromarray(part.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BICUBIC)
        alpha = np.zeros((side, side), np.uint8)
        own = box.moved(-around.x1, -around.y1)
        alpha[own.y1 : own.y2, own.x1 : own.x2] = np.asarray(grown)[own.y1 : own.y2, own.x1 : own.x2]
        alpha[: int(side * masks.KEPT_ABOVE)] = 0
        width = masks.blur_width(side)
        alpha = np.asarray(cv2.GaussianBlur(alpha, (width, width), 0), np.uint8)
        stretched = cv2.resize(face, (box.width, box.height), interpolation=cv2.INTER_LINEAR)
        square.paste(Image.fromarray(stretched), (own.x1, own.y1, own.x2, own.y2))
        whole.paste(square, (around.x1, around.y1), Image.fromarray(alpha))
        return np.asarray(whole)


def _encode(folder: Path, frames: list[Any], count: int, rate: Fraction, sound: Path, disk: bool) -> None:
    """On disk: from the files, then once more with the sound, as the script's two commands do."""

    def read() -> Iterator[Any]:
        for number in range(count):
            yield np.asarray(cv2.imread(str(folder / f"out-{number:08d}.png")))[:, :, ::-1]

    first, last = folder / "silent.mp4", folder / "out.mp4"
    _x264(first if disk else last, read() if disk else iter(frames), rate, "18", None if disk else sound)
    if disk:
        _x264(last, video.pictures(video.open_clip(first)), rate, "23", sound)


def _x264(path: Path, pictures: Iterator[Any], rate: Fraction, crf: str, sound: Path | None) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": crf})
        track: Any = container.add_stream("aac", rate=audio.TRACK_RATE_HZ, layout="mono") if sound else None
        for number, picture in enumerate(pictures):
            if not number:
                (stream.height, stream.width), stream.pix_fmt = picture.shape[:2], "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for chunk in audio.track(sound) if sound else ():
            container.mux(track.encode(chunk))
        if sound:
            container.mux(track.encode(None))
