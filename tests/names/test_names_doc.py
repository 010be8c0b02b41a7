"""The examples of docs/NAMES.md do what the page says."""
import re
from pathlib import Path

import pytest
from porting.interop.layout import parse
from porting.interop.names import CONVENTIONS, load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "NAMES.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks("python")), "docs/NAMES.md", "exec"), {})
    assert "layout 'a b c d -> a c (b d)' makes the port's blk_0 0.out.0: 100 % of the elements bit-equal" in capsys.readouterr().out


def test_the_file_of_the_page_and_all_conventions_can_be_read(tmp_path):
    text, = blocks("toml")
    (tmp_path / "names.toml").write_text(text, encoding="utf-8")
    assert len(load(str(tmp_path / "names.toml")).rules) == 3 + len(load("llama.cpp").rules)
    (tmp_path / "names.toml").write_text(text.replace("[[name]]", "[[nam]]"), encoding="utf-8")
    with pytest.raises(ValueError, match="got nam"):
        load(str(tmp_path / "names.toml"))
    for name in CONVENTIONS:
        assert load(name).rules and f"`{name}`" in PAGE


def test_the_layouts_of_the_table_can_be_read():
    rows = re.findall(r"^\| `([^`]*->[^`]*)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 9 and all(parse(row) for row in rows)
