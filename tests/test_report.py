"""Tables in a terminal and the page of `fpcontrol verify --report`."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from studies import BAD, EXACT, FIGURE, GOOD, ODD, returning, synthetic, verify

from fpcontrol import cli, theorems
from fpcontrol.theorems.report import markup

__all__ = ["synthetic"]  # a fixture


def columns(lines: Sequence[str]) -> list[list[str]]:
    """Cells of a table whose columns end where the words of its head do."""
    ends = [m.end() for m in re.finditer(r"\S+(?: \S+)*", lines[0])]
    starts = [0, *ends]
    return [[line[a:b].strip() for a, b in zip(starts, ends, strict=False)] for line in lines]


def test_table_is_aligned_narrow_and_ascii():
    long = replace(EXACT, quantity="a quantity with a name that is too long for its column " * 2)
    lines = cli.table([GOOD, BAD, ODD, FIGURE, long])
    assert all(len(line) <= 110 and line.isascii() for line in lines)
    # The quantities are flush left, the numbers flush right below the words of the head.
    ends = [m.end() for m in re.finditer(r"\S+(?: \S+)*", lines[0])][1:]
    for line in lines[2:6]:
        assert len(line) == ends[-1]
        assert all(line[end] == " " for end in ends[:-1])
    text = "\n".join(lines)
    assert "figure, kappa = 1" in text
    assert "sigma too large" in text
    verdicts = [line.split()[-1] for line in lines[2:6]]
    assert verdicts == ["ok", "FAILED", "FAILED", "-"]
    assert "<= 1" in lines[3]
    assert ">= 1" in lines[4]
    errors = [line.split()[-3 if i == 0 else -2] for i, line in enumerate(lines[2:7])]
    assert errors == ["1.0e-05", "1.0e-05", "inf", "-", "-"]


def test_columns_without_an_entry_are_left_out():
    assert "predicted" not in cli.table([BAD])[0]
    assert "bound" not in cli.table([GOOD])[0]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"$\|\rho_n-\rho\|\to 0$ as $n\to\infty$", "||rho_n-rho|| -> 0 as n -> infinity"),
        (r"$\sqrt{\cosh aT - 1}$", "sqrt(cosh aT -1)"),
        (r"$\frac{a}{\sqrt2 Dk^2}$, $\tfrac12$", "a/(sqrt 2 Dk^2), 1/2"),
        ("σ = 0.5, 2 × 3 ≤ 7", "sigma = 0.5, 2 x 3 <= 7"),
        (r"$\sigma_c\sim\sqrt{a}/k$", "sigma_c ~ sqrt(a)/k"),
        (r"$\int\frac1x$, $\to\frac ab$, $\sim\frac{a}{bc}$", "int 1/x, -> a/b, ~ a/bc"),
    ],
)
def test_formulas_in_a_terminal(text, plain):
    assert markup.plain(text) == plain


class Page(HTMLParser):
    """What a page names, links to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert name not in ("srcset", "data", "action")
            assert name != "src" or str(value).startswith("data:image/svg+xml;base64,")
            if name == "id":
                self.ids.append(value or "")
            elif name.endswith("href"):
                self.links.append(value or "")
            elif name == "alt":
                self.labels.append(value or "")
            self.links += re.findall(r"url\(([^)]*)\)", value or "")


@pytest.mark.parallel([1, 2])
def test_page_stands_alone_and_shows_everything(synthetic, tmp_path):
    synthetic(first=returning(GOOD, BAD), second=returning(ODD, FIGURE))
    assert verify("--report", str(tmp_path / "new")) == 1
    assert os.listdir(tmp_path / "new") == ["index.html"]
    text = (tmp_path / "new" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    # Names of XML vocabularies are no links; anything else must be within the page.
    math = "http://www.w3.org/1998/Math/MathML"
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {math}
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.labels.count("Error & <rate>") == 3  # every panel
    assert "undrawn" not in text
    assert "system-message" not in text
    assert text.count("<math") >= 8
    for words in (
        "A statement that is not one.",
        "<p>one item,</p>",
        "<mi>ρ</mi>",
        "<mi>κ</mi>",
        "&lt;as&gt; it should",
        "n   error\n1   0.5",
        "σ too large",
        '<td class="failed">failed</td>',
        '<td class="passed">passed</td>',
    ):
        assert words in text, words
    assert len(text) < 300_000


def test_formula_that_cannot_be_drawn_stands_as_it_was_typed():
    assert "undrawn" in markup.formula(r"\nothing{1}")


def test_page_without_what_draws_formulas_is_refused(synthetic, tmp_path, monkeypatch, capsys):
    synthetic(first=returning(GOOD))
    monkeypatch.setitem(sys.modules, "docutils", None)
    assert verify("--report", str(tmp_path)) == 2
    assert "pip install" in capsys.readouterr().err


def test_statements_have_texts_whose_formulas_can_be_drawn():
    for statement in theorems.STATEMENTS:
        for text in statement.texts:
            assert len(text) > 200
            page = markup.block(text)
            assert "<math" in page
            assert "system-message" not in page
            assert "problematic" not in page
