"""Markdown: a cell is text, whoever wrote it."""

from curricle.markdown import markdown_table


def test_a_cell_is_shown_as_text():
    evil = ["<script>alert(1)</script>", "[x](javascript:alert(1)) `a` | b", "one\ntwo", "a\\|b"]
    head, rule, row = markdown_table(["a", "b", "c", "d"], [evil]).split("\n")
    assert head == "| a | b | c | d |" and rule == "|---|---|---|---|"
    assert "<" not in row and "&lt;script&gt;" in row and "\\[x\\](javascript" in row and "one two" in row
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 5, "no cell begins another one"
