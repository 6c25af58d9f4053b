"""Makes a text safe to show anywhere: without terminal control sequences or direction overrides. Only that."""

from __future__ import annotations

#: Control characters (ANSI colors …) and those that override the text direction.
_UNSEEN = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F)], "\ufffd")
_UNSEEN |= dict.fromkeys(range(0x2066, 0x206A), "\ufffd")


def cell(text: str) -> str:
    """A text for a spreadsheet cell: plain, and quoted if it would be parsed as a formula."""
    return plain("'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text)


def plain(text: str) -> str:
    """A text without deceptive characters. Every text on a page and in a bundle passes through here."""
    return text.translate(_UNSEEN)
