"""Tables contain the measured numbers exactly, to the last bit.

pytest tests/tuning/test_outcomes.py
"""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.tuning.outcomes import write_csv

FLOATS = st.lists(st.floats(allow_nan=False), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(FLOATS)
def test_numbers_read_back_to_the_same_bits(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_csv(
        path, [{"value": value} for value in [*values, 0.00031622776601683794, 1 / 3]], ["value"]
    )
    read = pd.read_csv(path)["value"].tolist()
    assert read == [*values, 0.00031622776601683794, 1 / 3]
