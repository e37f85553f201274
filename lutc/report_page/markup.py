"""Text into markup: escaping, numbers for people, small elements."""

from __future__ import annotations

import html
import unicodedata

_NOBREAK = "\u202f"


def text(value: object) -> str:
    """Escaped for element content and quoted attributes.

    Characters that control the display (direction marks, escape sequences, line ends) become visible escapes, so that a
    name cannot pose as another.
    """
    shown = "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c for c in str(value)
    )
    return html.escape(shown, quote=True)


def breakable(name: str) -> str:
    """An escaped name that may be broken behind its slashes, dots and underscores."""
    return "".join(f"{text(c)}<wbr>" if c in "/._}" else text(c) for c in name)


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in exponent form between 1e-6 and 1e9."""
    if value == 0:
        return "0"
    if not 1e-6 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}".replace("-", "\u2212")
    shown = f"{value:.{digits}g}"
    if "e" in shown:
        shown = f"{float(shown):f}".rstrip("0").rstrip(".")
    return shown.replace("-", "\u2212")


def duration(microseconds: float) -> str:
    """A time for people: microseconds below a millisecond, seconds above a thousand of these."""
    for unit, scale in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= scale:
            return f"{number(microseconds / scale)}{_NOBREAK}{unit}"
    return f"{number(microseconds)}{_NOBREAK}\u00b5s"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{number(count / scale)}{_NOBREAK}{unit}"
    return f"{int(count)}{_NOBREAK}B"


def element(tag: str, content: str, **attributes: object) -> str:
    """`<tag name="value">content</tag>`; attributes are escaped, content is not. `class_` is `class`, `_` is `-`."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"' for name, value in attributes.items() if value != ""
    )
    return f"<{tag}{given}>{content}</{tag}>"
