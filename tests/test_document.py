import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna import document
from archtuna.errors import SpecError


def test_every_value_knows_its_file_line_and_path(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text("a: 1\nrows:\n  - [1, Conv]\n  - {k: 3}\n")
    top = document.read(file)
    row = top.entries()["rows"].items()[1].entries()["k"]
    assert (row.file, row.line, row.path, row.scalar) == (str(file), 4, "rows[1].k", 3)
    assert top.plain() == {"a": 1, "rows": [[1, "Conv"], {"k": 3}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), (".5", 0.5), ("012", 12), ("-3", -3), ("no", "no"), ("12:30", "12:30"), ("'3'", "3"),
        ("True", True), ("~", None), ("null", None), ("3|5", "3|5"), ("0.01..0.3 log", "0.01..0.3 log"), ("1.", 1.0),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    found = document.parse(f"x: {text}").entries()["x"].scalar
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1, 2", 2, "not YAML"),
        ("a: 1\na: 2", 2, "the key 'a' stands twice .first on line 1."),
        ("x: 1\na: !!python/object/apply:os.system [ls]", 2, "tag .*os.system is not allowed"),
        ("a: !!python/name:os.system ''", 1, "is not allowed"),
        ("[" * 50_000, 1, "nested deeper than 48 levels"),
        ("a: &x [*x]", 1, "no finished anchor"),
        ("a: *x", 1, "no finished anchor"),
        ("--- 1\n--- 2", 2, "a second document"),
        ("<<: {a: 1}", 1, "merge keys"),
        ("[1, 2]: 3", 1, "a key must be a single name"),
        ("a: " + "9" * 400, 1, "a number of 400 characters"),
        ("a:\n\tb: 1", 2, "not YAML.*"),
    ],
)
def test_what_is_no_plain_data_is_one_error_with_its_line(text, line, message):
    with pytest.raises(SpecError, match=message) as caught:
        document.parse(text, file="f.yaml")
    assert caught.value.line == line
    assert str(caught.value).startswith(f"f.yaml:{line}: ")


def test_aliases_repeat_values_and_a_bomb_of_them_is_refused():
    assert document.parse("a: &x [1]\nb: *x").plain() == {"a": [1], "b": [1]}
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    with pytest.raises(SpecError, match="more than 200,000 values"):
        document.parse("a0: &a0 [x, x]\n" + levels)


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "model.yaml").write_text("a: 1")
    with pytest.raises(SpecError, match=r"no such file\nhint: did you mean 'model.yaml'\?"):
        document.read(tmp_path / "modle.yaml")


def test_binary_large_and_unreadable_files_are_refused(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8 text .byte 3."):
        document.read(tmp_path / "b.yaml")
    (tmp_path / "large.yaml").write_text("#" * (document.MAX_BYTES + 1))
    with pytest.raises(SpecError, match="the file has 2,000,001 bytes"):
        document.read(tmp_path / "large.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        document.read(tmp_path)


def test_unknown_keys_name_their_own_line_and_the_nearest_key():
    top = document.parse("backbone: 1\n\ninput_chanel: 3", file="f.yaml")
    with pytest.raises(SpecError, match=r"f.yaml:3: input_chanel: unknown key\nhint: did you mean 'input_channel'\?"):
        top.entries(("backbone", "input_channel"))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        document.parse(text).plain()
    except SpecError as error:
        assert error.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_plain_data_goes_in_and_comes_out(plain):
    assert document.from_plain(plain).plain() == plain
