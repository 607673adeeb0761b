"""Colors written as numbers, to be named, in the words of BIG-bench's `color`.

Sources: sRGB, IEC 61966-2-1; CIE 1976 L*a*b* and its polar form, the "HCL" of the original, under the white point D65;
the named colors, CSS Color Module Level 4.
"""

from colorsys import rgb_to_hls
from math import atan2, degrees, dist, hypot
from random import Random

# The CSS colors of each answer. With one color for each answer, turquoise would be nearest to white.
FAMILIES = {
    "white": "ffffff f5f5f5 f8f8ff fffaf0",
    "blue": "0000ff 00008b 1e90ff 4169e1 4682b4 87ceeb add8e6 191970",
    "orange": "ffa500 ff8c00",
    "black": "000000",
    "red": "ff0000 dc143c 8b0000",
    "brown": "a52a2a a0522d 8b4513",
    "yellow": "ffff00 ffd700 f0e68c",
    "green": "008000 00ff00 006400 228b22 90ee90 2e8b57 9acd32 556b2f",
    "gray": "808080 696969 a9a9a9 d3d3d3",
    "purple": "800080 4b0082 8a2be2 9370db ba55d3 dda0dd ff00ff",
}
OTHERS = "ffc0cb ff69b4 ff1493 fa8072 ff7f50 d2b48c 00ffff 40e0d0 008080"  # pinks, tan, cyans: colors of no answer
MARGIN = 1.3  # the second nearest family is this many times as far, so that the answer is clear despite rounding

RGB = tuple[int, int, int]


class Color:
    """`answer = argmin over families of the distance in L*a*b*`, for colors of sRGB written as RGB, HSL, HCL or HEX."""

    choices = tuple(FAMILIES)

    @staticmethod
    def draw(random: Random, answer: str) -> str:
        """Draw a color of the family `answer`, uniformly among the sRGB colors with a clear family."""
        notation = random.choice(tuple(NOTATIONS))
        while True:
            rgb = (random.randrange(256), random.randrange(256), random.randrange(256))
            if nearest(rgb) == answer:
                break
        choices = "".join(f"\n  choice: {name}" for name in FAMILIES)
        written = NOTATIONS[notation](rgb)
        return f"Q: What is the color most closely matching this {notation} representation: {written} ?{choices}\nA:"


def nearest(rgb: RGB) -> str | None:
    """Return the family nearest to `rgb` (0 to 255); None if it is not an answer or the next is within `MARGIN`."""
    color = lab(rgb)
    distances = {name: min(dist(color, point) for point in points) for name, points in LAB_POINTS.items()}
    first, second = sorted(distances, key=lambda name: distances[name])[:2]
    return first if first in FAMILIES and distances[second] >= MARGIN * distances[first] else None


def lab(rgb: RGB) -> tuple[float, float, float]:
    """Return `L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z))`, with X, Y, Z relative to D65."""
    r, g, b = (c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb)
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def _rgb(rgb: RGB) -> str:
    return "rgb({}, {}, {})".format(*rgb)


def _hsl(rgb: RGB) -> str:
    hue, lightness, saturation = rgb_to_hls(*(c / 255 for c in rgb))
    return f"hsl({round(360 * hue, 2)}, {round(100 * saturation, 2)}%, {round(100 * lightness, 2)}%)"


def _hcl(rgb: RGB) -> str:
    lightness, a, b = lab(rgb)
    return f"hcl({round(degrees(atan2(b, a)) % 360, 2)}, {round(hypot(a, b), 2)}, {round(lightness, 2)})"


def _hex(rgb: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


NOTATIONS = {"RGB": _rgb, "HSL": _hsl, "HCL": _hcl, "HEX": _hex}
LAB_POINTS = {
    name: [lab((code >> 16, code >> 8 & 255, code & 255)) for code in (int(word, 16) for word in words.split())]
    for name, words in {**FAMILIES, "": OTHERS}.items()
}
