"""A text as it may be shown anywhere: nothing in it is an order to a terminal, or turns what follows. Only that."""

from __future__ import annotations

#: Control characters (ANSI colours …) and those that turn the direction of what follows.
_UNSEEN = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F)], "\ufffd")
_UNSEEN |= dict.fromkeys(range(0x2066, 0x206A), "\ufffd")


def cell(text: str) -> str:
    """A text in a table for a spreadsheet: plain, and quoted if it would be taken for a formula."""
    return plain("'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text)


def plain(text: str) -> str:
    """A text without what would show as something else than it is. Every text on a page and in a bundle passes here."""
    return text.translate(_UNSEEN)
