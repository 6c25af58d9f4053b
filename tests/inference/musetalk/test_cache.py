"""Avatars on disk: found again, thrown away when damaged, the longest unused first out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from inference.engines.musetalk.avatar import Avatar, Maker
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.cache import Cache, key
from inference.engines.musetalk.masks import Mask
from inference.engines.musetalk.params import Params, read

MIB = 1 << 20


def avatar(pictures: int = 3, *, whole: bool = True) -> Avatar:
    maker = Maker()
    for number in range(pictures):
        if number == 1:
            maker.pass_by()
            continue
        alpha = np.arange(12, dtype=np.uint8).reshape(3, 4) + number
        maker.add(Box(1, 2, 30, 40), np.full((8, 32, 32), number, np.float16), Mask(5, 6, alpha))
    return maker.made(whole=whole)


def test_an_avatar_comes_back_as_it_was(tmp_path: Path) -> None:
    Cache(tmp_path, MIB).put("a", avatar())
    found = Cache(tmp_path, MIB).get("a", 3)
    assert found is not None
    assert [found.has_face(number) for number in range(len(found))] == [True, False, True]
    assert found.box(2) == Box(1, 2, 30, 40)
    assert found.latents[2].tolist() == np.full((8, 32, 32), 2.0).tolist()
    mask = found.mask(2)
    assert (mask.x, mask.y, mask.alpha.tolist()) == (5, 6, (np.arange(12).reshape(3, 4) + 2).tolist())
    assert found.whole


def test_one_that_knows_too_few_pictures_is_not_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    cache.put("a", avatar(3, whole=False))
    assert cache.get("a", 4) is None
    assert cache.get("a", 3) is not None


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty", "text"])
def test_a_damaged_one_is_thrown_away(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path, MIB)
    cache.put("a", avatar())
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes({"cut off": content[:-100], "changed": content, "empty": b"", "text": b"{" * 200}[damage]))
    assert cache.get("a", 1) is None
    assert not list(tmp_path.iterdir())


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    size = avatar(20).latents.nbytes
    cache = Cache(tmp_path, round(size * 2.5))
    for at, name in enumerate(["a", "b"]):
        cache.put(name, avatar(20))
        os.utime(tmp_path / f"{name}.avatar", (at, at))
    assert cache.get("a", 1) is not None
    cache.put("c", avatar(20))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c"]


def test_what_a_dead_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.1.part").write_bytes(b"half")
    Cache(tmp_path, MIB)
    assert not list(tmp_path.iterdir())


def test_an_avatar_of_more_than_half_of_the_room_is_not_kept(tmp_path: Path) -> None:
    Cache(tmp_path, avatar(20).latents.nbytes).put("a", avatar(20))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [True, False])
def test_without_room_nothing_is_kept(tmp_path: Path, folder: bool) -> None:
    cache = Cache(tmp_path if folder else None, 0 if folder else MIB)
    cache.put("a", avatar())
    assert cache.get("a", 1) is None
    assert not list(tmp_path.iterdir())


def test_a_cache_that_was_turned_off_is_emptied(tmp_path: Path) -> None:
    Cache(tmp_path, MIB).put("a", avatar())
    assert list(tmp_path.iterdir())
    Cache(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_the_avatar_and_not_the_job(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "gone", MIB)
    (tmp_path / "gone").rmdir()
    cache.put("a", avatar())
    assert cache.get("a", 1) is None


def test_the_name_follows_from_content_parameters_and_weights(tmp_path: Path) -> None:
    one, same, other = tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"
    one.write_bytes(b"video")
    same.write_bytes(b"video")
    other.write_bytes(b"other")
    name = key(one, Params(), "w")
    assert name == key(same, Params(loop="hold", fit="pad"), "w")
    changed = {"parsing_mode": "raw"}, {"face": 1}, {"face": [0.5, 0.5]}, {"smooth": False}, {"bbox_shift": 3}, {"parity": True}
    names = {key(one, read(said), "w") for said in changed} | {key(other, Params(), "w"), key(one, Params(), "v")}
    assert len(names) == 8
    assert name not in names
