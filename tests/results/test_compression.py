"""The compressed size of a text that follows another, by xz.

pytest tests/results/test_compression.py
"""

import random

from squentropy.results.compression import xz_bits


def test_what_stood_before_costs_next_to_nothing_and_noise_costs_all_its_bits():
    noise = random.Random(0).randbytes(20_000)
    assert xz_bits(noise, noise[5000:15_000]) < 8 * 1000  # of 10,000 bytes
    bits = xz_bits(b"", noise)
    assert 0.99 < bits / (8 * len(noise)) < 1.02


def test_a_text_of_another_kind_before_it_matters_little():
    text = b"".join(b"Once there were %d kites. " % n for n in range(2000))
    noise = random.Random(1).randbytes(20_000)
    assert xz_bits(noise, text) < 1.3 * xz_bits(b"", text)
