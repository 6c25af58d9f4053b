"""Which picture an output frame is made from."""

from inference.engines.musetalk import cycle


def test_loop_goes_there_and_back_with_both_ends_doubled() -> None:
    assert [cycle.picture(frame, 3, "loop") for frame in range(14)] == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]


def test_hold_stays_at_the_last_picture() -> None:
    assert [cycle.picture(frame, 3, "hold") for frame in range(6)] == [0, 1, 2, 2, 2, 2]


def test_cut_ends_with_whichever_ends_first() -> None:
    assert cycle.length(10, 3, "cut") == 3
    assert cycle.length(2, 3, "cut") == 2
    assert [cycle.picture(frame, 3, "cut") for frame in range(3)] == [0, 1, 2]


def test_otherwise_the_speech_decides_the_length() -> None:
    for loop in ("loop", "hold"):
        assert cycle.length(10, 3, loop) == 10
        assert cycle.length(2, 3, loop) == 2


def test_one_picture_serves_every_frame() -> None:
    for loop in ("loop", "hold"):
        assert {cycle.picture(frame, 1, loop) for frame in range(9)} == {0}
