"""Numbers as people and JSON read them."""

from dollmaker.measures.words import finite, interval, number

NAN = float("nan")


def test_what_is_not_known_is_a_dash_or_null() -> None:
    assert [finite(value) for value in (None, NAN, float("inf"), 0, 0.5)] == [
        *(None, None, None),
        *(0.0, 0.5),
    ]
    assert [number(value) for value in (None, NAN, 0.126, -1.0)] == ["-", "-", "0.13", "-1.00"]
    row = {"miou": 0.4213, "miou_low": NAN, "miou_high": 0.5}
    assert interval(row, "miou", 3) == "0.421 [-, 0.500]"
