"""Inputs for the tests of the fuzz targets."""

from __future__ import annotations

from hypothesis import strategies as st


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A good input, cut, with a few bytes replaced and something appended; or nothing but noise."""
    changes = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)

    def apply(seed: bytes, replaced: list[tuple[int, int]], keep: float, tail: bytes) -> bytes:
        data = bytearray(seed[: int(len(seed) * keep)])
        for place, value in replaced:
            if data:
                data[place % len(data)] = value
        return bytes(data) + tail

    keep = st.one_of(st.just(1.0), st.floats(0, 1))
    return st.one_of(
        st.builds(apply, st.sampled_from(seeds), changes, keep, st.binary(max_size=16)), st.binary(max_size=256)
    )
