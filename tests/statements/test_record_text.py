"""Texts in EPICS records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ptychostream.statements.record_text import STRING_BYTES, clip


@given(st.text(max_size=100), st.integers(4, 100))
def test_texts_are_cut_at_a_character(text: str, most: int) -> None:
    cut, whole = clip(text, most), text.encode(errors="replace")
    assert len(cut) <= most
    cut.decode()
    assert cut == whole or (len(whole) > most and cut.endswith(b"..."))


def test_a_string_record_holds_39_bytes() -> None:
    assert clip("a" * STRING_BYTES) == b"a" * 39
    assert clip("a" * 40) == b"a" * 36 + b"..."
