"""What engines ask of a card, as far as a machine without one can show it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from errors import EngineFailed
from inference.engines import card


def test_a_card_that_is_too_old_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(EngineFailed) as caught:
        card.refuse_older("Tesla T4", (7, 5), (8, 0), "knows no bfloat16")
    said = "Tesla T4 has compute capability 7.5 and knows no bfloat16; a card of at least 8.0 is needed"
    assert caught.value.message == said
    card.refuse_older("NVIDIA A100", (8, 0), (8, 0), "knows no bfloat16")
    card.refuse_older("NVIDIA GeForce RTX 5090", (12, 0), (8, 0), "knows no bfloat16")


def test_without_a_card_none_is_lost() -> None:
    card.let_go()
    assert not card.is_lost()
