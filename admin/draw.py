"""Small pictures that are made here, as SVG paths: they are there without a script. The style sheet has their colours."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup


def line(values: Sequence[float | None], most: float, width: int = 100, height: int = 24) -> Markup:
    """The `d` of a line through these values from left to right, 0 at the bottom and `most` at the top; None is a gap."""
    step, most, pen, parts = width / max(1, len(values) - 1), most or 1.0, "M", []
    for place, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        level = height - 1 - (height - 2) * min(max(value / most, 0.0), 1.0)
        parts.append(f"{pen}{place * step:.1f} {level:.1f}")
        pen = "L"
    if len(parts) == 1:
        parts.append("h1")  # one value alone is a dot
    return Markup("".join(parts))  # noqa: S704 - made of figures alone


def bars(counts: Sequence[tuple[int, int]], width: int = 240, height: int = 40) -> tuple[Markup, Markup]:
    """The `d` of two sets of bars, (well, badly), one stacked on the other, as high as the highest of the sums."""
    most, step = max((well + badly for well, badly in counts), default=0) or 1, width / max(1, len(counts))
    good, bad = [], []
    for place, (well, badly) in enumerate(counts):
        left, low, high = place * step + 0.5, height * well / most, height * badly / most
        box = f"v{{:.1f}}h{step - 1:.1f}v{{:.1f}}z"
        if well:
            good.append(f"M{left:.1f} {height}" + box.format(-low, low))
        if badly:
            bad.append(f"M{left:.1f} {height - low:.1f}" + box.format(-max(1.5, high), max(1.5, high)))
    return Markup("".join(good)), Markup("".join(bad))  # noqa: S704 - made of figures alone
