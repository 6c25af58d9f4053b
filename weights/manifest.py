"""Which files each engine needs, where they come from and what they must be: data, nothing else.

Sizes and hashes are those that several public lock files agree on, except where `note` says otherwise. A revision is the
commit of the repository at which a file is fetched, so that a later upload never changes what a worker runs. A file whose
hash is not known here is still checked: against the one that the hub itself names for it, where it names one.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The hub that `repository` names a place on, unless a mirror is set.
HUB = "https://huggingface.co"
#: The folder under MODELS_DIR that an engine's converted files lie in, and their list of hashes, as `sha256sum` reads it.
CONVERTED = {"musetalk": "musetalk-fp16"}
SUMS = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class File:
    """path: under MODELS_DIR. Either repository, revision and name, or a url of its own. size_bytes, sha256 None: not known."""

    path: str
    repository: str | None = None
    revision: str | None = None
    name: str = ""
    url: str | None = None
    size_bytes: int | None = None
    about_bytes: int = 0
    sha256: str | None = None
    optional: bool = False
    note: str = ""

    @property
    def expected_bytes(self) -> int:
        """The size, or about the size where it is not known exactly."""
        return self.size_bytes or self.about_bytes

    @property
    def origin(self) -> str:
        """Where it is fetched without a mirror."""
        return self.url or f"{HUB}/{self.repository}/resolve/{self.revision}/{self.name}"


def _of(repository: str, revision: str, folder: str, *names: tuple[str, int, str]) -> list[File]:
    return [
        File(path=f"{folder}/{name}", repository=repository, revision=revision, name=name, size_bytes=size, sha256=digest)
        for name, size, digest in names
    ]


_MUSETALK = "TMElyralab/MuseTalk"
_MUSETALK_REVISION = "3ef28bc5cff08c90ad8178a25f1b570cd800170f"
_VAE = ("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
_WHISPER = ("openai/whisper-tiny", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af")
_DWPOSE = ("yzd-v/DWPose", "1a7144101628d69ee7a3768d1ee3a094070dc388")
_PARSER = ("ManyOtherFunctions/face-parse-bisent", "0073b233a5a3c4b1377d4dbf49245017938a72b5")
_NOT_LISTED = "size and hash are in no public list; checked against the hub's own hash"


def _unet(path: str, size_bytes: int, sha256: str) -> File:
    """A file of MuseTalk 1.5, where the path is also the name."""
    return File(path=path, repository=_MUSETALK, revision=_MUSETALK_REVISION, name=path, size_bytes=size_bytes, sha256=sha256)


def _unet_1_0(path: str, about_bytes: int) -> File:
    """A file of MuseTalk 1.0, of which no public list says more than where it is."""
    return File(
        path=path,
        repository=_MUSETALK,
        revision=_MUSETALK_REVISION,
        name=path,
        about_bytes=about_bytes,
        optional=True,
        note=_NOT_LISTED,
    )


MUSETALK = (
    _unet("musetalkV15/musetalk.json", 748, "5b6923aee04d71692e0e9846c471e0a4ea07a4f686d39545e472bd4ba17e1b47"),
    _unet("musetalkV15/unet.pth", 3_400_074_924, "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007"),
    _unet_1_0("musetalk/musetalk.json", 748),
    _unet_1_0("musetalk/pytorch_model.bin", 3_400_000_000),
    *_of(
        *_VAE,
        "sd-vae",
        ("config.json", 547, "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e"),
        (
            "diffusion_pytorch_model.bin",
            334_707_217,
            "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc",
        ),
    ),
    *_of(
        *_WHISPER,
        "whisper",
        ("config.json", 1_983, "ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98"),
        ("pytorch_model.bin", 151_095_027, "9607f98a2b22d9e229ae43c52ecea79dcede9e0c5cfae67e8da6eda86d8aac1d"),
        ("preprocessor_config.json", 184_990, "9b5cd03a36fbb8a627c64d98a5b5b126ead95a77720723944487311f0110b666"),
    ),
    *_of(
        *_DWPOSE,
        "dwpose",
        ("dw-ll_ucoco_384.pth", 406_878_486, "0d9408b13cd863c4e95a149dd31232f88f2a12aa6cf8964ed74d7d97748c7a07"),
    ),
    *_of(
        *_PARSER,
        "face-parse-bisent",
        ("79999_iter.pth", 53_289_463, "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567"),
    ),
    File(
        path="s3fd/s3fd-619a316812.pth",
        url="https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
        about_bytes=89_843_000,
        sha256="619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543",
        note="size is about that of 22,459,110 numbers; the hash is in one public list and begins as the name says",
    ),
)

#: The files of each engine. `optional`: only another version of the engine needs it.
ENGINES: dict[str, tuple[File, ...]] = {"musetalk": MUSETALK}


def by_path(path: str) -> File | None:
    """The file that belongs at `path` under MODELS_DIR, whichever engine's it is."""
    return next((file for files in ENGINES.values() for file in files if file.path == path), None)
