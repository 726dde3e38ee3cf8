"""Readers of untrusted text: whatever comes, they read it right or refuse it in their own words."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dollmaker.config import settings as config
from dollmaker.config.whole import Config
from dollmaker.pixels.names import image_id
from dollmaker.prepare.listing import labels
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import rle, tables
from dollmaker.store.files import inside

FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CELLS = st.text(alphabet="a1-.,;\"'\r\n \t/\\\0é\ufeff<$", max_size=8)


def plan_config() -> Config:
    table = {"file": "t.csv", "images": ".", "image_column": "image", "finding_columns": ["A"]}
    return config.resolved({"dataset": "x", "source": {"kind": "table", "table": table}})


@FEW
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    try:
        table = tables.read_source(tmp_path / "t.csv")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert len(table) > 0
    assert all(str(dtype) == "String" for dtype in table.dtypes)


@FEW
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_any_cells_are_a_plan_or_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    text = "".join(f"{image},{label}\n" for image, label in rows)
    (tmp_path / "t.csv").write_text("image,A\n" + text, newline="")
    try:
        plan, names = list_source(plan_config(), tmp_path)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert names == ["A"]
    assert set(plan["A"]) <= {1, 0, -1, None}
    assert plan["image_id"].null_count() == 0


@FEW
@given(text=st.text(max_size=30))
def test_any_path_stays_inside_or_is_refused(tmp_path: Path, text: str) -> None:
    image_id(text)
    with contextlib.suppress(DataError):
        assert inside(tmp_path, text).is_relative_to(tmp_path.resolve())


@FEW
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), bits=st.integers(0, 2**81 - 1))
def test_masks_come_back(shape: tuple[int, int], bits: int) -> None:
    values = [bool(bits >> k & 1) for k in range(shape[0] * shape[1])]
    mask = np.array(values).reshape(shape)
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), *shape), mask)


@FEW
@given(code=st.one_of(st.text(max_size=12), st.text(alphabet="0PQoO1", max_size=12)))
def test_any_code_is_a_mask_or_refused(code: str) -> None:
    try:
        assert rle.decode(code, 4, 3).shape == (4, 3)
    except DataError as error:
        assert re.search("damaged|do not fill", str(error))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = sorted(Config.model_fields)


@FEW
@given(section=st.sampled_from(KEYS), value=JSON)
def test_any_section_is_resolved_or_refused(section: str, value: Any) -> None:
    given_config = {"dataset": "x", "source": {"kind": "phantoms"}, section: value}
    try:
        full = config.resolved(given_config).dump()
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert config.resolved(full).dump() == full
    json.dumps(full, allow_nan=False)


@FEW
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_a_configuration_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(data)
    with pytest.raises(ConfigError):
        config.loaded(str(tmp_path / "c.yaml"))


@FEW
@given(text=st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["1", "0", "-1", "1.0"])))
def test_labels_are_the_known_ones_or_refused(text: str | None) -> None:
    import polars as pl

    known = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, None: None}
    words = {"true": 1, "false": 0, **dict.fromkeys(("na", "n/a", "nan", "<na>", "null"))}
    table = pl.DataFrame({"A": pl.Series([text], dtype=pl.String)})
    try:
        (found,) = labels(table, "A", Path("t")).to_list()
    except DataError as error:
        assert "line 2" in str(error)
        assert text not in known and str(text).lower() not in words
        return
    if text in known:
        assert found == known[text]
    elif str(text).lower() in words:
        assert found == words[str(text).lower()]
    else:  # a number as any program writes it
        assert found == float(str(text).replace(",", ".")) and found in (-1, 0, 1)
