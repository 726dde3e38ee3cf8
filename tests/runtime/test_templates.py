"""Templates: values are escaped, and a name that is not known is an error."""

from pathlib import Path

import jinja2
import pytest

from dollmaker.runtime.templates import open_templates


def test_pages_escape_and_texts_keep_their_last_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("{% if x %}\n{{ x | twice }}\n{% endif %}\n")
    filters = {"twice": lambda value: 2 * value}
    page, text = (open_templates(tmp_path, html=html, filters=filters) for html in (True, False))
    assert page.get_template("t").render(x="<b>") == "&lt;b&gt;&lt;b&gt;\n"
    assert text.get_template("t").render(x="<b>") == "<b><b>\n"
    with pytest.raises(jinja2.UndefinedError):
        page.get_template("t").render()
