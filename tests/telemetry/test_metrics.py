from __future__ import annotations

from telemetry.metrics import Facts, text


def test_a_label_that_holds_quotes_and_line_ends_cannot_break_the_page() -> None:
    page = text(Facts(version='1"\n2', model="a\\b", gpus=[{"index": 0, "name": None, "uuid": "u", "power_w": 3}])).decode()
    assert 'worker_build_info{model="a\\\\b",version="1\\"\\n2"} 1.0' in page
    assert 'gpu_power_watts{gpu="0",name="",uuid="u"} 3.0' in page


def test_nothing_known_is_a_page_with_the_build_alone() -> None:
    lines = text(Facts(version="1", model="preview")).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['worker_build_info{model="preview",version="1"} 1.0']


def test_a_state_of_one_mode_is_one_and_of_the_others_zero() -> None:
    page = text(Facts(version="1", model="preview", mode="paused", orchestrator_up=False)).decode()
    assert 'worker_mode{mode="paused"} 1.0' in page
    assert page.count("worker_mode{") == 5
    assert "worker_orchestrator_up 0.0" in page
