"""The local store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from errors import EngineFailed
from jobqueue import spool
from uploader.stores import StoreRefused
from uploader.stores.directory import DirectoryStore


def nothing(done: int, total: int) -> None:
    """Nobody listens."""


def test_a_video_is_kept_whole_under_its_name_and_has_a_link(tmp_path: Path) -> None:
    video = tmp_path / "output.mp4"
    video.write_bytes(b"a video")
    store = DirectoryStore(tmp_path / "outputs", "http://127.0.0.1:8000")
    stored = store.put(video, "avatar/outputs/a b.mp4", "video/mp4", spool.sha1_of(video), nothing)
    assert stored.url == "http://127.0.0.1:8000/outputs/avatar/outputs/a%20b.mp4"
    assert (tmp_path / "outputs/avatar/outputs/a b.mp4").read_bytes() == b"a video"
    store.put(video, "avatar/outputs/a b.mp4", "video/mp4", spool.sha1_of(video), nothing)
    store.put_json("avatar/outputs/a b.json", {"frames": 3})
    assert json.loads((tmp_path / "outputs/avatar/outputs/a b.json").read_text()) == {"frames": 3}
    assert len(list((tmp_path / "outputs/avatar/outputs").iterdir())) == 2


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/a.mp4", "a/../../b.mp4", "a//b.mp4", ".hidden.mp4", "a\0.mp4"])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    video = tmp_path / "output.mp4"
    video.write_bytes(b"a video")
    with pytest.raises(EngineFailed, match="is not a valid object name"):
        DirectoryStore(tmp_path / "outputs", "http://x").put(video, name, "video/mp4", spool.sha1_of(video), nothing)


def test_a_folder_that_cannot_be_made_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way")
    with pytest.raises(StoreRefused, match="DATA_DIR"):
        DirectoryStore(tmp_path / "outputs", "http://x").check()
