"""Inputs kept by the fuzzer, and changed ones, are accepted or refused in one line.

pytest tests/fuzz/test_fuzz.py      `make fuzz` searches for more, for forty minutes
"""

import time

import pytest
import targets
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_was_kept_is_taken_or_refused(target):
    every = sorted((targets.KEPT / target).iterdir())
    assert every
    for path in every:
        began = time.process_time()
        targets.tried(target, path.read_bytes())
        assert time.process_time() - began < 2, path


@pytest.mark.parametrize("target", targets.TARGETS)
def test_any_bytes_are_taken_or_refused(target):
    seeds = [path.read_bytes() for path in sorted((targets.KEPT / target).iterdir())]

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.sampled_from(seeds), st.data())
    def attempt(seed: bytes, data: st.DataObject) -> None:
        start, stop = sorted(data.draw(st.integers(0, len(seed))) for _ in range(2))
        targets.tried(target, seed[:start] + data.draw(st.binary(max_size=20)) + seed[stop:])

    attempt()


def test_a_target_that_raises_anything_else_is_noticed(monkeypatch):
    monkeypatch.setitem(targets.TARGETS, "wrong", lambda data: data[0])
    with pytest.raises(IndexError):
        targets.tried("wrong", b"")
