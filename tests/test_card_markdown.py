import pytest
import yaml
from markdown_it import MarkdownIt

from archtuna.card.markdown import fence, inline, quoted, table

NASTY = (
    "plain", "a|b", "`code`", "``", "**bold**", "_it_", "<script>", "&amp;", "[x](http://y)", "![i](j)", "# head", "1. one", "2) two",
    "- item", "+ item", "> quote", "~~~", "---", "===", "a\\", "\\|", "$x$", "| a | b |", "Straße 日本 🌲", "a  b", ":---",
)  # fmt: skip


def texts(source):
    """What a reader sees of each inline run."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(source)
    return ["".join(child.content for child in t.children or ()) for t in tokens if t.type == "inline"], tokens


@pytest.mark.parametrize("text", NASTY)
def test_a_name_is_seen_as_it_is_in_a_line_and_in_a_cell(text):
    seen = " ".join(text.split())
    assert texts(inline(text))[0] == [seen]
    found, tokens = texts("\n".join(table(("class", "n"), [(inline(text), 3), ("other", 4)])))
    assert found == ["class", "n", seen, "3", "other", "4"]
    assert [t.type for t in tokens].count("tr_open") == 3


def test_lines_and_signs_that_nobody_sees_become_one_line():
    assert texts(inline("a\nb\r\n\tc"))[0] == ["a b �c"] or texts(inline("a\nb\r\n\tc"))[0] == ["a b� c"]
    assert inline("bell\x07, half \udc80, end\u2028") == "bell�, half �, end�"
    inline("half \udc80").encode()


@pytest.mark.parametrize("text", ["a: 1\n", "```\nrm\n```", "````", "no end"])
def test_a_fence_holds_whatever_stands_in_it(text):
    (token,) = MarkdownIt().parse("\n".join(fence(text, "yaml")))
    assert (token.type, token.info, token.content) == ("fence", "yaml", text.rstrip("\n") + "\n")


@pytest.mark.parametrize("text", [*NASTY, "a\nb", "'", '"', "null", "012", "x\x07y", "\u2028", "\x85"])
def test_a_scalar_of_yaml_reads_back(text):
    assert yaml.safe_load(f"name: {quoted(text)}") == {"name": text}
