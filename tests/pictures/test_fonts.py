"""Fonts: text in any script is drawn where the system has a font for it."""

from matplotlib import font_manager

from rsa_jax.pictures import fonts


def test_installed_fonts_follow_the_first_one(monkeypatch):
    fonts.families.cache_clear()
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "Unifont", "Noto Sans CJK SC"])
    assert fonts.families("monospace") == ["monospace", "Noto Sans CJK SC", "Unifont"]
    fonts.families.cache_clear()
