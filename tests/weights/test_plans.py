"""Each size of card gets a plan that fits it, written down here; smaller plans need less, larger clips need more."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from weights.plans import (
    CACHE_FRAMES,
    DECODER_CHANNELS,
    LATENT_FRAMES,
    PLANS,
    Linears,
    Plan,
    VideoDecoder,
    choose,
    chunk,
    needed_bytes,
    needed_ram_bytes,
    offered,
    smaller,
    weights_bytes,
)

GIB = 2**30
#: What the driver and a desktop's frame buffer keep of a card before anybody loads anything.
TAKEN_BYTES = GIB // 2


@pytest.mark.parametrize(
    ("card_gib", "at_720p", "at_480p"),
    [
        (8, "tiled", "streamed"),
        (12, "streamed", "streamed"),
        (16, "streamed", "lean"),
        (24, "lean", "steady"),
        (32, "steady", "large"),
        (48, "whole", "whole"),
        (80, "whole", "whole"),
        (141, "whole", "whole"),
    ],
)
def test_each_size_of_card_has_its_plan(card_gib: int, at_720p: str, at_480p: str) -> None:
    free_bytes = card_gib * GIB - TAKEN_BYTES
    assert choose(free_bytes).name == at_720p
    assert choose(free_bytes, height=480, width=832).name == at_480p


@pytest.mark.parametrize(
    ("card_gib", "fp8", "tiny", "both"),
    [
        (8, "tiled", "streamed", "streamed"),
        (12, "streamed", "streamed", "lean"),
        (16, "lean", "lean", "steady"),
        (24, "steady", "steady", "whole"),
        (32, "large", "whole", "whole"),
        (48, "whole", "whole", "whole"),
    ],
)
def test_what_is_not_exact_gives_smaller_cards_faster_plans(card_gib: int, fp8: str, tiny: str, both: str) -> None:
    free_bytes = card_gib * GIB - TAKEN_BYTES
    kinds: list[tuple[Linears, VideoDecoder]] = [("fp8", "full"), ("bf16", "tiny"), ("fp8", "tiny")]
    assert [choose(free_bytes, offered(*each)).name for each in kinds] == [fp8, tiny, both]
    for linears, decoder in kinds:
        among = offered(linears, decoder)
        following = [smaller(plan, height=480, width=832) for plan in among]
        assert [each and among.index(each) > place for place, each in enumerate(following)] == [True] * (len(among) - 1) + [
            None
        ]
        assert {(plan.linears, plan.decoder) for plan in among} == {(linears, decoder)}


def test_what_is_chosen_fits_where_anything_does() -> None:
    for free_bytes in range(0, 100 * GIB, GIB):
        plan = choose(free_bytes)
        assert needed_bytes(plan) <= free_bytes or plan == PLANS[-1]


def test_more_memory_never_gives_a_slower_plan() -> None:
    places = [PLANS.index(choose(free_bytes)) for free_bytes in range(0, 100 * GIB, GIB)]
    assert places == sorted(places, reverse=True)


@pytest.mark.parametrize(("height", "width"), [(704, 1280), (1280, 704), (480, 832), (832, 480)])
def test_every_plan_needs_less_than_the_one_before(height: int, width: int) -> None:
    needed = [needed_bytes(plan, height=height, width=width) for plan in PLANS]
    assert all(less < more for more, less in pairwise(needed))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_more_pixels_and_frames_need_no_less(plan: Plan) -> None:
    for smaller_clip, larger_clip in (
        ({"frames": 5}, {"frames": 121}),
        ({"height": 480, "width": 832}, {"height": 704, "width": 1280}),
        ({"height": 32, "width": 32, "frames": 1}, {"height": 64, "width": 64, "frames": 5}),
    ):
        assert weights_bytes(plan) < needed_bytes(plan, **smaller_clip) <= needed_bytes(plan, **larger_clip)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_larger_pictures_are_decoded_fewer_at_a_time_so_that_no_tensor_is_too_long_to_count(plan: Plan) -> None:
    assert chunk(plan, 704, 1280) == chunk(plan, 480, 832) == plan.chunk
    sides = range(64, 1537, 32)
    for height, width in ((height, width) for height in sides for width in sides):
        at_once = chunk(plan, height, width)
        widest = DECODER_CHANNELS * (LATENT_FRAMES * at_once + CACHE_FRAMES) * (height // 2) * (width // 2)
        assert 1 <= at_once <= plan.chunk
        assert widest < 2**31
        assert at_once == 1 or at_once * height * width <= plan.chunk * 704 * 1280


def test_the_weights_are_those_of_the_published_files() -> None:
    assert weights_bytes(PLANS[0]) == pytest.approx(9_999_660_080 + 11_361_851_208 + 2_818_777_808 * 0.606, rel=0.01)


def test_the_next_smaller_plan_really_needs_less() -> None:
    assert [plan.name for plan in PLANS if (after := smaller(plan)) and needed_bytes(after) >= needed_bytes(plan)] == []
    assert smaller(PLANS[-1]) is None
    assert smaller(PLANS[0], frames=1) == PLANS[2]  # one latent frame: no chunk is larger than another


def test_only_the_smallest_plan_changes_pixels() -> None:
    assert [plan.name for plan in PLANS if plan.tiled] == ["tiled"]


def test_streamed_weights_are_pinned_in_the_machines_memory() -> None:
    """9.8 GB of blocks in slabs of 512 MiB, of which a sixth may stay empty."""
    needed = {plan.name: needed_ram_bytes(plan) for plan in PLANS}
    assert needed["streamed"] - needed["lean"] == pytest.approx(11.8e9, rel=0.01)


@pytest.mark.parametrize("decoder", ["full", "tiny"])
@pytest.mark.parametrize("linears", ["bf16", "fp8"])
def test_the_manual_says_what_each_card_gets_with_each_choice(linears: Linears, decoder: VideoDecoder) -> None:
    names = [choose(card * GIB - TAKEN_BYTES, offered(linears, decoder)).name for card in (8, 12, 16, 24, 32, 48)]
    manual = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    assert f"| {linears} | {decoder} | {' | '.join(names)} |\n" in manual


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_the_manual_says_what_each_plan_needs(plan: Plan) -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text()
    (row,) = (line for line in manual.splitlines() if line.startswith(f"| {plan.name} |"))
    needed = (needed_bytes(plan), needed_bytes(plan, height=480, width=832))
    assert all(f"| {each / 1e9:.1f} GB |" in row for each in needed)
    assert f"| {needed_ram_bytes(plan) / 1e9:.0f} GB |" in row
