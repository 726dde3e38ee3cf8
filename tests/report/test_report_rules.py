"""Which jobs the report plans."""

from pathlib import Path

from snakemake_here import MICRO, planned


def test_explanations_are_made_where_the_report_shall_show_them(tmp_path: Path) -> None:
    assert "explain_segmenter" not in planned(tmp_path, MICRO)
    wished = MICRO.replace("gallery: 4", "gallery: 4, explained: true")
    assert "explain_segmenter" in planned(tmp_path, wished)
