"""FastWan's memory plans: where weights are placed on a GPU of a given size, and how much of a clip is decoded at once.

Data and arithmetic only: never queries a GPU or imports torch; callers pass in the free memory. Parameters are counted from
the published configurations; activations are what is alive at the same time in the widest place of each network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Linears = Literal["bf16", "fp8"]
VideoDecoder = Literal["full", "tiny"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """transformer: streamed means block by block from pinned host memory, the next one copied while the current one runs.

    text: card is bf16 on the GPU, card8 is 8-bit on the GPU, cpu is memory-mapped and run on the CPU, nothing on the GPU.
    chunk: latent frames of 1280x704 decoded at once, after the first, which is decoded alone; see `chunk`. tiled: decode in
    tiles, which changes pixels near their seams. linears, decoder: the user's options, see `offered`.
    """

    name: str
    transformer: Literal["resident", "streamed"]
    text: Literal["card", "card8", "cpu"]
    chunk: int
    tiled: bool = False
    linears: Linears = "bf16"
    decoder: VideoDecoder = "full"


#: From the fastest to the smallest. Streaming comes before tiling: it costs time, tiling costs pixels.
PLANS = (
    Plan(name="whole", transformer="resident", text="card", chunk=4),
    Plan(name="large", transformer="resident", text="card", chunk=2),
    Plan(name="steady", transformer="resident", text="card8", chunk=1),
    Plan(name="lean", transformer="resident", text="cpu", chunk=1),
    Plan(name="streamed", transformer="streamed", text="cpu", chunk=1),
    Plan(name="tiled", transformer="streamed", text="cpu", chunk=1, tiled=True),
)

#: The size that plans are made for, in pixels; and the most elements that convolution kernels can index with 32 bits.
PLANNED_PX, MAX_NUMBERS = 1280 * 704, 2**31 - 1

# ---- weights: parameters as counted from the published configurations ------------------------------------------------------

BF16, FP32 = 2, 4  # bytes per number
#: 30 layers of width 3072 with ffn 14336, and what comes before and after them.
TRANSFORMER_PARAMETERS = 4_999_787_712
LAYERS, WIDTH, FFN = 30, 3072, 14_336
#: One layer: two attentions of four projections with two norms, the ffn, norm2, and six rows of modulation.
BLOCK_PARAMETERS = 2 * (4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH) + (2 * WIDTH * FFN + FFN + WIDTH) + 2 * WIDTH + 6 * WIDTH
#: Of these, the weights of linear layers, one byte each with FASTWAN_LINEARS=fp8; and their rows, each with a scale.
BLOCK_LINEAR_WEIGHTS, BLOCK_LINEAR_ROWS = 2 * (4 * WIDTH * WIDTH + WIDTH * FFN), 2 * 4 * WIDTH + FFN + WIDTH
#: Time embedder, modulation tables and norms stay fp32: 11 M parameters with two bytes more each.
TRANSFORMER_FP32_PARAMETERS = 11_000_000
#: Streamed: the block that runs and the one being copied.
BLOCKS_ON_CARD = 2
#: UMT5-XXL's encoder; its embedding of 256,384 words stays bf16 when the linear layers are 8-bit.
TEXT_PARAMETERS, TEXT_EMBEDDING_PARAMETERS = 5_680_910_336, 256_384 * 4096
#: The decoder is bf16; the encoder stays fp32, since a bf16 first frame shifts the whole clip. Counts include the convolutions
#: before and after them.
DECODER_PARAMETERS, ENCODER_PARAMETERS = 555_051_580, 149_637_088
#: The merged upsampling weights that the decoder derives from these and also keeps: four 2x2 kernels for each of three
#: convolutions, of 1024, 1024 and 512 channels.
DOUBLING_PARAMETERS = 4 * 4 * (2 * 1024**2 + 512**2)

# ---- activations -----------------------------------------------------------------------------------------------------------

#: Pixels per token and per latent pixel along one side, and frames per latent frame.
TOKEN_PX, LATENT_PX, LATENT_FRAMES = 32, 16, 4
#: Rows of tokens x WIDTH in bf16 that are alive at the peak, in the ffn: the tokens, its input, and the hidden layer before and
#: after its GELU. Counted on meta tensors through the engine: 11.7 with latents and positions.
DENOISE_ROWS = 2 + 2 * FFN / WIDTH
#: Additional rows with fp8: the hidden layer being quantized, uncompiled, once in 16 and once in 8 bits.
DENOISE_ROWS_FP8 = FFN / WIDTH / 2
#: What a step needs for a clip of any size: the text's keys and values, modulation, tables of positions.
STEP_BYTES = 48 * 10**6
#: Copies of the latents in fp32: noise, the clip, the prediction, the first frame, and intermediate results.
LATENT_COPIES = 8
#: The decoder's widest tensor: 512 channels at half the height and width, at the input of its last block.
DECODER_CHANNELS = 512
#: Such tensors that are alive at once. Counted on meta tensors through the engine's decoder: 4.0 with its norms compiled, 4.5
#: uncompiled (diffusers' own: 7.0); plus half a tensor of workspace for convolutions.
DECODER_TENSORS = 5
#: Channels per pixel whose last two frames causal convolutions cache: 2048 at 1/2, 3584 at 1/4, 7168 at 1/8, 11312 at 1/16.
CACHE_CHANNELS_PER_PX = 2048 / 4 + 3584 / 16 + 7168 / 64 + 11_312 / 256
CACHE_FRAMES = 2
#: The tiny decoder's weights; its widest tensor, 64 channels at half the height and width; and how many of them are alive at
#: once, its cache and the frames included. Counted on meta tensors: 2.1 to 2.3.
TINY_PARAMETERS, TINY_CHANNELS, TINY_TENSORS = 9_923_532, 64, 2.7
#: One side of a tile when the decode is tiled. Tiles are decoded one after the other and assembled on the host.
TILE_PX = 512
#: Copies of a part's frames in fp32 on their way out: decoded, blended, and rounded to integers.
PICTURE_COPIES = 4
#: One image through the encoder in fp32: 160 channels at half size. How many such tensors are alive at once, with the frames of
#: zeros before the image in every convolution; counted on a simulated GPU.
ENCODER_CHANNELS, ENCODER_TENSORS = 160, 13
#: The text encoder with 512 tokens: ffn 10240, and 64 heads of 512 x 512 scores in fp32, a few of each.
TEXT_PEAK_BYTES = 400 * 10**6
#: The CUDA context and its libraries (about 0.5 GB), convolution workspaces and allocator fragmentation.
RESERVE_BYTES = 1_200 * 10**6

# ---- host memory -----------------------------------------------------------------------------------------------------------

#: Python with torch and CUDA loaded, frames waiting for the encoder, and the worker's other programs.
HOST_BYTES = 4 * 10**9
#: torch rounds pinned allocations up to a power of two (its CachingHostAllocator; pytorch issues 95823, 150517), so the blocks'
#: tensors are packed into slabs of this size; in each, less than the largest tensor (88.1 MB) stays empty.
PINNED_SLAB_BYTES, PINNED_WASTE_BYTES = 2**29, 2 * WIDTH * FFN


def needed_bytes(plan: Plan, *, frames: int = 121, height: int = 704, width: int = 1280) -> int:
    """GPU memory that must be free before anything is loaded. frames, height, width: of the finished clip."""
    peak = max(
        denoise_bytes(plan, frames, height, width),
        decode_bytes(plan, frames, height, width),
        encode_bytes(height, width),
        TEXT_PEAK_BYTES if plan.text != "cpu" else 0,
    )
    return weights_bytes(plan) + peak + RESERVE_BYTES


def weights_bytes(plan: Plan) -> int:
    """What stays on the GPU between jobs."""
    decoder = {"full": DECODER_PARAMETERS + DOUBLING_PARAMETERS, "tiny": TINY_PARAMETERS}[plan.decoder]
    return _transformer_bytes(plan) + _text_bytes(plan) + BF16 * decoder + FP32 * ENCODER_PARAMETERS


def denoise_bytes(plan: Plan, frames: int, height: int, width: int) -> int:
    """What a sampling step needs in addition to the weights."""
    tokens = _latent_frames(frames) * (height // TOKEN_PX) * (width // TOKEN_PX)
    latents = 48 * _latent_frames(frames) * (height // LATENT_PX) * (width // LATENT_PX)
    rows = DENOISE_ROWS + (DENOISE_ROWS_FP8 if plan.linears == "fp8" else 0)
    return int(rows * tokens * WIDTH * BF16) + LATENT_COPIES * latents * FP32 + STEP_BYTES


def decode_bytes(plan: Plan, frames: int, height: int, width: int) -> int:
    """What decoding a part of the clip needs in addition to the weights."""
    at_once = min(chunk(plan, height, width), max(_latent_frames(frames) - 1, 1))
    if plan.tiled:  # one after the other, assembled on the host
        height, width = min(height, TILE_PX), min(width, TILE_PX)
    if plan.decoder == "tiny":
        return int(TINY_TENSORS * TINY_CHANNELS * LATENT_FRAMES * at_once * (height // 2) * (width // 2) * BF16)
    pictures = PICTURE_COPIES * 3 * LATENT_FRAMES * at_once * height * width * FP32
    widest = DECODER_CHANNELS * LATENT_FRAMES * at_once * (height // 2) * (width // 2) * BF16
    kept = int(CACHE_CHANNELS_PER_PX * CACHE_FRAMES * height * width * BF16)
    return DECODER_TENSORS * widest + kept + pictures


def encode_bytes(height: int, width: int) -> int:
    """What encoding an image needs in addition to the weights."""
    return ENCODER_TENSORS * ENCODER_CHANNELS * (height // 2) * (width // 2) * FP32


def chunk(plan: Plan, height: int, width: int) -> int:
    """Latent frames to decode at once: fewer if frames are larger than planned, so that a part takes no more memory, and its
    widest tensor, including the frames cached before it, has no more than MAX_NUMBERS elements."""
    pictures = MAX_NUMBERS // (DECODER_CHANNELS * (height // 2) * (width // 2)) - CACHE_FRAMES
    return max(1, min(plan.chunk, plan.chunk * PLANNED_PX // (height * width), pictures // LATENT_FRAMES))


def needed_ram_bytes(plan: Plan) -> int:
    """Host memory that the machine must have: pinned weights and the programs.

    Memory-mapped weights (text encoder on the CPU: 11.4 GB) are not counted: without room for them they are read from disk
    again for each new prompt, which is slow but works.
    """
    if plan.transformer == "resident":
        return HOST_BYTES
    slabs = -(-LAYERS * _block_bytes(plan) // (PINNED_SLAB_BYTES - PINNED_WASTE_BYTES))
    return HOST_BYTES + slabs * PINNED_SLAB_BYTES


def offered(linears: Linears = "bf16", decoder: VideoDecoder = "full") -> tuple[Plan, ...]:
    """The plans with the user's options that are not exact: the transformer's linear layers in 8 bits, the tiny decoder. The
    latter needs no tiles."""
    return tuple(replace(plan, linears=linears, decoder=decoder) for plan in PLANS if not (plan.tiled and decoder == "tiny"))


def choose(
    free_bytes: int, among: tuple[Plan, ...] = PLANS, *, frames: int = 121, height: int = 704, width: int = 1280
) -> Plan:
    """The fastest plan that fits, or the smallest if none does."""
    fitting = (plan for plan in among if needed_bytes(plan, frames=frames, height=height, width=width) <= free_bytes)
    return next(fitting, among[-1])


def smaller(plan: Plan, *, frames: int = 121, height: int = 704, width: int = 1280) -> Plan | None:
    """The next plan that needs less memory for a clip of this shape; None after the smallest, or if `plan` is not offered."""
    among = offered(plan.linears, plan.decoder)
    if plan not in among:
        return None
    now = needed_bytes(plan, frames=frames, height=height, width=width)
    after = among[among.index(plan) + 1 :]
    return next((each for each in after if needed_bytes(each, frames=frames, height=height, width=width) < now), None)


# ---- parts -----------------------------------------------------------------------------------------------------------------


def _transformer_bytes(plan: Plan) -> int:
    outside = TRANSFORMER_PARAMETERS - LAYERS * BLOCK_PARAMETERS
    blocks = LAYERS if plan.transformer == "resident" else BLOCKS_ON_CARD
    return BF16 * outside + blocks * _block_bytes(plan) + (FP32 - BF16) * TRANSFORMER_FP32_PARAMETERS


def _block_bytes(plan: Plan) -> int:
    if plan.linears == "bf16":
        return BF16 * BLOCK_PARAMETERS
    return BF16 * (BLOCK_PARAMETERS - BLOCK_LINEAR_WEIGHTS) + BLOCK_LINEAR_WEIGHTS + FP32 * BLOCK_LINEAR_ROWS


def _text_bytes(plan: Plan) -> int:
    linear = TEXT_PARAMETERS - TEXT_EMBEDDING_PARAMETERS
    return {"card": BF16 * TEXT_PARAMETERS, "card8": linear + BF16 * TEXT_EMBEDDING_PARAMETERS, "cpu": 0}[plan.text]


def _latent_frames(frames: int) -> int:
    return (frames - 1) // LATENT_FRAMES + 1
