"""Colours that are distinguishable with any kind of colour vision."""

from __future__ import annotations

from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # pink
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (136, 34, 85),  # wine
    (68, 170, 153),  # teal
    (51, 34, 136),  # indigo
    (221, 204, 119),  # sand
    (153, 153, 51),  # olive
)
"""The seven colours of Okabe and Ito, then five colours of Paul Tol that differ from them."""


def class_colour(number: int) -> Colour:
    """Return the colour of a class; the colours of `PALETTE` repeat.

    Args:
        number: the class number.

    Returns:
        Red, green and blue, 0..255.

    Examples:
        >>> class_colour(0)
        (230, 159, 0)
    """
    return PALETTE[number % len(PALETTE)]


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever has the higher contrast to ``colour`` as defined by WCAG 2."""

    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = map(linear, colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # At L = 0.179, the contrasts with white, 1.05 / (L + 0.05), and black, (L + 0.05) / 0.05, are equal.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
