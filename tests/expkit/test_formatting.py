# ruff: noqa: RUF001 (the page has real minus signs)
import pytest

from expkit import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("0 ulp", "0 ulp"),
        (3, "3"),
        (0.0, "0"),
        (2.0, "2"),
        (0.97314159, "0.9731"),
        (-0.5, "−0.5"),
        (12345.678, "12346"),
        (1.5e-7, "1.5×10⁻⁷"),
        (-2.5e12, "−2.5×10¹²"),
    ],
)
def test_numbers_have_four_digits_and_real_signs(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([0.9, 0.95], "0.9 to 0.95"),
        ([None, None], "−∞ to ∞"),
        ([-1, 2], "−1 to 2"),
        ([0.5, 0.5], "all equal"),
    ],
)
def test_intervals_name_both_ends(ends, text):
    assert formatting.interval(ends) == text


def test_a_single_core_is_no_plural():
    assert [formatting.cores(n) for n in (1, 2)] == ["1 core", "2 cores"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([4], "4"),
        ([0, 1, 2], "0, 1, 2"),
        (range(10), "0 to 9"),
        ([0, 2, 3, 9], "0, 2, 3, 9"),
    ],
)
def test_long_runs_of_seeds_are_shortened(values, text):
    assert formatting.seeds(list(values)) == text


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (
            "Chen, Table 1. https://arxiv.org/abs/2302.06675.",
            ["https://arxiv.org/abs/2302.06675"],
        ),
        ("(see http://a.b/c?d=e#f), 2", ["http://a.b/c?d=e#f"]),
        ("javascript:alert(1)", []),
        ("https://a.b/<script>", ["https://a.b/"]),
        ("", []),
    ],
)
def test_only_web_addresses_become_links_and_no_word_is_lost(text, addresses):
    pieces = formatting.pieces(text)
    assert [address for _, address in pieces if address] == addresses
    rebuilt = "".join(address or words for words, address in pieces)
    assert rebuilt == text


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("./x  --a=b", ["./x", "--a=b"]),
        ("./x '--out=a  b' c", ["./x", "'--out=a  b'", "c"]),
        ("it's odd", ["it's", "odd"]),
        ("", []),
    ],
)
def test_command_lines_are_not_cut_inside_quotes(line, found):
    assert formatting.words(line) == found


def test_slugs_are_html_ids():
    assert formatting.slug('a b"<c>.d_e') == "a-b-c-.d_e"


def test_nested_settings_become_lines():
    settings = {"lr": 3e-4, "net": {"layers": [64, 0.5], "bias": None}, "on": True}
    assert formatting.flat(settings) == [
        ("lr", "0.0003"),
        ("net.layers", "[64, 0.5]"),
        ("net.bias", "–"),
        ("on", "True"),
    ]


README = """# Lion: `signs` instead of steps

[![badge](https://a.b/c.svg)](https://a.b) ![picture](x.png)

| a table | first |
|---|---|

The **Lion** optimiser ([paper](https://a.b/p)) takes the sign
of `m`: see __below__.

Second paragraph.
"""


def test_introduction_is_title_and_first_paragraph_without_markup(tmp_path):
    (tmp_path / "README.md").write_text(README)
    found = formatting.introduction(tmp_path / "README.md")
    assert found["title"] == "Lion: signs instead of steps"
    assert found["text"] == "The Lion optimiser (paper) takes the sign of m: see below."
    assert found["idea"] == found["published"] == found["differences"] == ""
    assert not any(formatting.introduction(tmp_path / "no.md").values())


def test_introduction_has_sections_and_formulas(repository_root):
    found = formatting.introduction(repository_root / "lion" / "README.md")
    assert r"c_t &= \beta_1 m_{t-1}" in found["idea"]
    assert "| ViT-B/16 | 75.48 (80.12) | 77.44 (80.77) |" in found["published"]
    assert "optax.lion" in found["differences"]
    assert "optax.lion" not in found["published"]
    assert [name for name, _ in found["formulas"]] == ["lion", "scale_by_lion"]


@pytest.mark.parametrize(
    ("source", "name", "address"),
    [
        ("Su 2022, CoSENT (1), a. https://k.fm/8847", "Su 2022", "https://k.fm/8847"),
        ("A and B et al. 2020. https://a.b/c.", "A and B et al. 2020", "https://a.b/c"),
        ("A. Author, 2020.", "A. Author", ""),
        ("https://a.b", "", "https://a.b"),
    ],
)
def test_the_origin_of_a_claim_is_who_and_where(source, name, address):
    assert formatting.origin(source) == (name, address)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7_850, "2 h 10 min")],
)
def test_durations_are_words(seconds, words):
    assert formatting.duration(seconds) == words
