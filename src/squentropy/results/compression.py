"""What a compressor makes of the test stories after the training text: a yardstick without a model.

xz is LZMA, Lempel and Ziv's repeats with an entropy coder behind: it finds what stands there again
word for word.
"""

import lzma


def xz_bits(before: bytes, text: bytes) -> int:
    """Bits that `text` adds to `before` when xz packs the two as one, at its strongest for text."""
    size = max(len(before) + len(text), 4096)
    how = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size, "lc": 4, "lp": 0, "pb": 0}

    def packed(whole: bytes) -> int:
        return len(lzma.compress(whole, lzma.FORMAT_RAW, filters=[how]))

    return 8 * (packed(before + text) - packed(before))
