"""Fonts for text in any script: class names and file names are drawn as they are."""

import contextlib
import functools

from matplotlib import font_manager

# Widely installed fonts with the letters that matplotlib's own fonts lack, above all Chinese, Japanese and Korean.
_FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Mono CJK SC", "Source Han Sans SC", "Source Han Sans"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Unifont"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Symbols2"),
)


@functools.cache
def families(family: str) -> list[str]:
    """The font family, followed by the installed fonts for letters that it lacks."""
    _add_new_fonts()
    installed = set(font_manager.get_font_names())
    return [family, *(name for name in _FALLBACKS if name in installed)]


def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib made its list of fonts."""
    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with contextlib.suppress(OSError, RuntimeError):  # FreeType cannot read every font
                manager.addfont(path)
