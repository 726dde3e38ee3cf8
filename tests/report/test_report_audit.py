"""The part of the page that tells which labels border and shape give away."""

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

import fake_results as fake
from dollmaker.config.settings import resolved
from dollmaker.pictures import charts
from dollmaker.prepare.audit import _ROW
from dollmaker.report.stage import report
from dollmaker.store import provenance, tables

TITLE = "Labels that need no content"
NAN = float("nan")


def page(results: Path, data: Path, output: Path) -> str:
    report(
        resolved(fake.make_config(truth=None)),
        results_folder=results,
        data_root=data,
        output=output / "report.html",
        summary_file=output / "summary.json",
        figures_folder=output / "figures",
    )
    return (output / "report.html").read_text(encoding="utf-8")


def test_alarming_labels_are_marked(
    tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    monkeypatch.setattr(charts, "_render", lambda *_: buffer.getvalue())
    results = tmp_path / "results"
    results.mkdir()
    (results / "index.parquet").write_bytes((tree.results / "index.parquet").read_bytes())
    assert TITLE not in page(results, tree.data, tmp_path / "without")
    aucs = {"border": (0.8312, 0.79, 0.87, True), "shape": (0.55, 0.4, 0.7, False)}
    rows = [
        ["<b>Mass</b>", part, 100, 40, 90, *aucs.get(part, (NAN, NAN, NAN, False))]
        for part in ("border", "shape", "both")
    ]
    table = pl.DataFrame(rows, schema=_ROW, orient="row")
    tables.write(table, results / "audit.parquet", provenance.header("audit", {}))
    made = page(results, tree.data, tmp_path / "with")
    section = made[made.index(TITLE) :]
    section = section[: section.index("</section>")]
    assert "&lt;b&gt;Mass&lt;/b&gt;" in section and "<b>Mass" not in section
    assert '<strong class="worse">0.831</strong> <span class="soft">0.790 to 0.870' in section
    assert "<td>0.550 <span" in section
    assert section.count('<strong class="worse">') == 2  # the other one explains the mark
    assert section.count(" to ") == 2 and "nan" not in section.lower()
