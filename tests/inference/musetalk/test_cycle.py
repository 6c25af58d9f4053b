"""How many frames the output has."""

from inference.engines.musetalk import cycle


def test_cut_ends_with_whichever_ends_first() -> None:
    assert cycle.length(10, 3, "cut") == 3
    assert cycle.length(2, 3, "cut") == 2


def test_otherwise_the_speech_decides_the_length() -> None:
    for loop in ("loop", "hold"):
        assert cycle.length(10, 3, loop) == 10
        assert cycle.length(2, 3, loop) == 2
