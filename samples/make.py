"""Makes the sample job: a face that moves a little, and a voice. Both may be used by anyone, see README.md beside it.

Needs scikit-image (for the portrait) and the program espeak-ng (for the voice), neither of which the worker needs; so run
it in an environment of its own, from the root of the checkout:

    pip install scikit-image av opencv-python-headless && PYTHONPATH=. python samples/make.py
"""

from __future__ import annotations

import math
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from media import audio, write
from media.still import Picture

HERE = Path(__file__).parent
RATE = Fraction(25)
FRAMES = 115  # 4.6 s: shorter than the speech, so that the video is seen going backwards too
SIZE_PX = 512
TEXT = "Hello. This is a short sample of speech. The mouth that you see moves with the loudness of my voice."


def portrait() -> Picture:
    """Eileen Collins, astronaut, photographed by NASA: (512, 512, 3) uint8 RGB."""
    from skimage import data  # type: ignore[import-not-found]

    return np.asarray(data.astronaut(), dtype=np.uint8)


def camera(image: Picture) -> Iterator[Picture]:
    """The portrait as a slow camera sees it: nearer, a little to and fro, and slightly turning."""
    for number in range(FRAMES):
        phase = 2 * math.pi * number / FRAMES
        width = 280 - 20 * math.sin(phase / 2)  # of the part that is seen, in pixels of the portrait
        centre = (224 + 7 * math.sin(phase), 136 + 4 * math.sin(2 * phase))
        matrix = cv2.getRotationMatrix2D(centre, 1.5 * math.sin(phase), SIZE_PX / width)
        matrix[:, 2] += (SIZE_PX / 2 - centre[0], SIZE_PX / 2 - centre[1])
        seen = cv2.warpAffine(image, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        yield np.asarray(seen, dtype=np.uint8)


def speak(target: Path) -> None:
    """The text, spoken by espeak-ng, as 16 kHz mono WAV of 16 bits."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "155", "-w", str(spoken), TEXT], check=True)
        samples = np.concatenate(list(audio.mono(spoken, 16_000)))
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main() -> None:
    image = portrait()
    cv2.imwrite(str(HERE / "face.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    write.write(HERE / "face.mp4", camera(image), rate=RATE, speech=None)
    speak(HERE / "speech.wav")


if __name__ == "__main__":
    main()
