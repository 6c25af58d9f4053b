"""Which files each engine needs, where they come from, their sizes and hashes: data, nothing else.

Sizes and hashes are those that several public lock files agree on, except where `note` says otherwise. A revision is the
commit of the repository at which a file is fetched, so that a later upload never changes what a worker runs. A file whose
hash is not known here is still checked against the one that the hub sends with it, if any.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The hub that hosts each `repository`, unless a mirror is set.
HUB = "https://huggingface.co"
#: The folder under MODELS_DIR with an engine's converted files, and their list of hashes, in `sha256sum` format. An engine
#: that is not listed reads its files as published.
CONVERTED = {"musetalk": "musetalk-fp16"}
SUMS = "SHA256SUMS"


def _written(network: str, *published: str, config: bool = False) -> dict[str, tuple[str, ...]]:
    names = (f"{network}.safetensors", f"{network}.json") if config else (f"{network}.safetensors",)
    return dict.fromkeys(published, tuple(f"{CONVERTED['musetalk']}/{name}" for name in names))


#: Path of a published file -> the converted files that replace it. The engine uses a network's only if all are present.
BECOMES: dict[str, tuple[str, ...]] = {
    **_written("unet-1.5", "musetalkV15/unet.pth", "musetalkV15/musetalk.json", config=True),
    **_written("unet-1.0", "musetalk/pytorch_model.bin", "musetalk/musetalk.json", config=True),
    **_written("vae", "sd-vae/diffusion_pytorch_model.bin", "sd-vae/config.json", config=True),
    **_written("whisper", "whisper/pytorch_model.bin", "whisper/config.json", "whisper/preprocessor_config.json", config=True),
    **_written("pose", "dwpose/dw-ll_ucoco_384.pth"),
    **_written("detector", "s3fd/s3fd-619a316812.pth"),
    **_written("parser", "face-parse-bisent/79999_iter.pth"),
}
#: FastWan's repositories; also the names of their folders under MODELS_DIR, in the order that the engine tries them. The first
#: is the one that is pulled.
FASTWAN_FOLDERS = ("FastWan2.2-TI2V-5B-FullAttn-Diffusers", "FastWan2.2-TI2V-5B-Diffusers")
#: FastWan's tiny decoder, under MODELS_DIR.
TINY = "taehv/taew2_2.pth"
#: Folders that an engine reads if the pulled one is missing. No public list has their hashes, so they are not checked.
INSTEAD = {"fastwan": FASTWAN_FOLDERS[1:]}
#: Other paths under MODELS_DIR where an engine looks for a pulled file, in this order: those of older downloads. No public list
#: has their hashes either.
ELSEWHERE = {
    "musetalkV15/musetalk.json": ("musetalkV15/config.json",),
    "musetalk/musetalk.json": ("musetalk/config.json",),
    "sd-vae/config.json": ("sd-vae-ft-mse/config.json",),
    "sd-vae/diffusion_pytorch_model.bin": (
        "sd-vae/diffusion_pytorch_model.safetensors",
        "sd-vae-ft-mse/diffusion_pytorch_model.bin",
        "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
    ),
    "whisper/pytorch_model.bin": ("whisper/model.safetensors",),
    "s3fd/s3fd-619a316812.pth": ("s3fd/s3fd.pth",),
}


@dataclass(frozen=True, kw_only=True)
class File:
    """path: under MODELS_DIR. Either repository, revision and name, or a url. size_bytes, sha256 None: not known."""

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
        """The size, or an estimate if it is not known exactly."""
        return self.size_bytes or self.about_bytes

    @property
    def origin(self) -> str:
        """Its URL without a mirror."""
        return self.url or f"{HUB}/{self.repository}/resolve/{self.revision}/{self.name}"


def _of(repository: str, revision: str, folder: str, *names: tuple[str, int, str], note: str = "") -> list[File]:
    return [
        File(
            path=f"{folder}/{name}",
            repository=repository,
            revision=revision,
            name=name,
            size_bytes=size,
            sha256=digest,
            note=note,
        )
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
    """A file of MuseTalk 1.0; public lists have only its location."""
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
        note="size is estimated from 22,459,110 parameters; the hash is in one public list and matches the prefix in the name",
    ),
)

_FASTWAN = (f"FastVideo/{FASTWAN_FOLDERS[0]}", "3e187042a324f6f5fb68fd22110a78725253de8f", FASTWAN_FOLDERS[0])

FASTWAN = (
    *_of(
        *_FASTWAN,
        ("model_index.json", 502, "a43fbeeb223895748ee9b266f52c0272ad31e6be3eb664d22dfc097015134ab9"),
        ("transformer/config.json", 503, "9ffd02a1f215985805f12ee409dd3deb5fbc2a812ffa555e6027f71d9764ee5d"),
        (
            "transformer/diffusion_pytorch_model.safetensors",
            9_999_660_080,
            "a1cf4acd5d0242ca0cad68e115064f4ac7e748686c9cf0da050ce87decc6b9bf",
        ),
        note="in one public list, which was checked against the hub's own hashes",
    ),
    *_of(  # the same files as in Wan-AI/Wan2.2-TI2V-5B-Diffusers
        *_FASTWAN,
        ("scheduler/scheduler_config.json", 820, "571a3eed68bcd943a61b9fea8efa9e141472216ada59f928c8b5128ce24b32e0"),
        ("text_encoder/config.json", 855, "a2bcb24699f6c009a2427432bdd483ef8b2b42a712abc9503759cdc77d171f07"),
        (
            "text_encoder/model-00001-of-00003.safetensors",
            4_935_812_536,
            "a8e861969c7433e707cc5a74065d795d36cca07ec96eb6763eb4083df7248f58",
        ),
        (
            "text_encoder/model-00002-of-00003.safetensors",
            4_983_103_192,
            "d57d948ece4837d850b7a859a4415121d57cacf8b9ee1d4db200c67f592902d7",
        ),
        (
            "text_encoder/model-00003-of-00003.safetensors",
            1_442_935_480,
            "0da9ee284e21d1406df708788db1d502d95d75f69faa25cd26151bf8829b7c5f",
        ),
        (
            "text_encoder/model.safetensors.index.json",
            22_476,
            "31c4c7bcce679eaa0dd4667462394ddb013dc2f748e0bffc893dc9146a320dab",
        ),
        ("tokenizer/special_tokens_map.json", 7_079, "456b58fd240a06c743a7c2cf8008bec501240d68ebd1fc4018ea569505fea270"),
        ("tokenizer/spiece.model", 4_548_313, "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458"),
        ("tokenizer/tokenizer.json", 16_837_459, "20a46ac256746594ed7e1e3ef733b83fbc5a6f0922aa7480eda961743de080ef"),
        ("tokenizer/tokenizer_config.json", 61_758, "1d8d2a216bf8e70ac15b7ddcea566c4dd0433c024b39a58ca5e4c66bd78defbd"),
        ("vae/config.json", 1_701, "d996c340fe9a7df5d7371f76a7d8d6956f6c98256080074d8434fa5eeac11360"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            2_818_777_808,
            "62cd18f19438e35b32ac63020e2852f566e9b02f46b6cdbd87972a356e3c6f4b",
        ),
    ),
    File(
        path=TINY,
        url="https://raw.githubusercontent.com/madebyollin/taehv/563f40bdc820ed86bcad72ea515ee48f06bd22ec/taew2_2.pth",
        size_bytes=22_884_021,
        sha256="d053e216ca50e2bb837bbcd79b85f0366bea00e5938025572382a773b74c559a",
        optional=True,
        note="for FASTWAN_DECODER=tiny",
    ),
)

#: The files of each engine. `optional`: needed only by another version of the engine, or with a certain setting.
ENGINES: dict[str, tuple[File, ...]] = {"musetalk": MUSETALK, "fastwan": FASTWAN}


def chosen(decoder: str) -> frozenset[str]:
    """The paths of optional files that FASTWAN_DECODER requires."""
    return frozenset({TINY} if decoder == "tiny" else ())


def places(path: str) -> tuple[str, ...]:
    """All paths under MODELS_DIR where an engine looks for the file that is pulled to `path`, in order."""
    return path, *ELSEWHERE.get(path, ())


def by_path(path: str) -> File | None:
    """The file that belongs at `path` under MODELS_DIR, of any engine."""
    return next((file for files in ENGINES.values() for file in files if file.path == path), None)


def expected(path: str) -> str:
    """The expected size of the file at `path` under MODELS_DIR, for a message, with a semicolon; "" if it is not listed."""
    file = by_path(path)
    if file is None or not file.expected_bytes:
        return ""
    return f"{'' if file.size_bytes else 'about '}{file.expected_bytes:,} bytes are expected; "
