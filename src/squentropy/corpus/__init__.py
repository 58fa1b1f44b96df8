"""Where stories come from, and the three splits made of them.

    squentropy corpus data/grammar/corpus

writes `train.parquet`, `validation.parquet`, `test.parquet` and `manifest.json`, which accounts
for every story that was read. A source is one file: `grammar.py` writes stories, `files.py` reads
yours, `hub.py` fetches a data set; `build.py` makes the splits, the same way for all of them.
"""

from squentropy.corpus.build import build

__all__ = ["build"]
