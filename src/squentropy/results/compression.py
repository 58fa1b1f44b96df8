"""The size of the test stories when compressed after the training text: a baseline without a model.

xz uses LZMA: Lempel-Ziv matching followed by an entropy coder. It only finds verbatim repeats.
"""

import lzma


def xz_bits(before: bytes, text: bytes) -> int:
    """Bits that `text` adds to `before` when xz compresses both as one, with settings for text."""
    size = max(len(before) + len(text), 4096)
    how = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size, "lc": 4, "lp": 0, "pb": 0}

    def packed(whole: bytes) -> int:
        return len(lzma.compress(whole, lzma.FORMAT_RAW, filters=[how]))

    return 8 * (packed(before + text) - packed(before))
