r"""Docstrings and claims as HTML with MathML, and as plain ASCII for a terminal.

Of reStructuredText: paragraphs, ``.. math::``, ``:math:``, literals, emphasis, lists and indented
tables; formulas between dollars as well.
"""

import html
import re
import textwrap
import unicodedata
from itertools import takewhile


def check() -> None:
    """Refuse to go on without what turns LaTeX into MathML.

    Raises:
        ImportError: If latex2mathml is not installed.
    """
    try:
        import latex2mathml.converter  # noqa: F401
    except ImportError:
        raise ImportError(
            "--report needs latex2mathml: pip install 'fpcontrol[report]' (or latex2mathml)."
        ) from None


# -- HTML ------------------------------------------------------------------------------------------

_BULLET = re.compile(r"(?:-|\*|\(\w{1,3}\)|\d+\.)\s+")
_INLINE = re.compile(
    r":math:`(?P<role>[^`]+)`|\$(?P<dollars>[^$]+)\$|``(?P<literal>.+?)``"
    r"|\*\*(?P<strong>[^*]+)\*\*|(?<![\w*])\*(?P<emphasis>[^*\s][^*]*)\*(?![\w*])",
    re.DOTALL,
)


def mathml(formula: str, display: bool = False) -> str:
    """A formula in LaTeX as MathML."""
    from latex2mathml.converter import convert

    # Sizes of delimiters: MathML stretches them itself.
    formula = re.sub(r"\\[bB]ig+[lrm]?(?![a-zA-Z])", "", " ".join(formula.split()))
    return _spaced(convert(formula, display="block" if display else "inline"))


def _display(text: str) -> str:
    """A ``.. math::`` block: a line for each row, with its tag (after ``&&``) on the right."""
    text = re.sub(r"\\(begin|end)\{(aligned|align\*?|gathered)\}", "", text)
    rows = re.split(r"\n\s*\n" if "{cases}" in text else r"\\\\(?:\[\w+\])?|\n\s*\n", text.strip())
    shown = []
    for row in rows:
        formula, *tag = row.split("&&")
        if "{cases}" not in formula:
            formula = formula.replace("&", " ")
        if formula.strip():
            name = f'<span class="tag">{html.escape(tag[0].strip())}</span>' if tag else ""
            shown.append(f'<div class="formula">{mathml(formula, display=True)}{name}</div>')
    return "".join(shown)


def _spaced(formula: str) -> str:
    """Thin spaces between names of functions and arguments without parentheses."""
    return re.sub(r"(<mi>[a-z]{3,}</mi>)(?=<m(?!o))", r'\1<mspace width="0.17em"/>', formula)


def inline(text: str) -> str:
    """Text with formulas, literals and emphasis as HTML."""
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        parts.append(html.escape(text[end : match.start()], quote=False))
        kind, content = match.lastgroup, str(match[match.lastgroup or 0])
        if kind in ("role", "dollars"):
            parts.append(mathml(content))
        else:
            tag = {"literal": "code", "strong": "strong", "emphasis": "em"}[str(kind)]
            parts.append(f"<{tag}>{html.escape(content, quote=False)}</{tag}>")
        end = match.end()
    return "".join([*parts, html.escape(text[end:], quote=False)])


def page(text: str) -> str:
    """A docstring as HTML."""
    lines, found, literal = text.expandtabs().splitlines(), [], False
    while lines:
        if not lines[0].strip():
            lines.pop(0)
            continue
        if lines[0].startswith(".. math::"):
            block = [lines.pop(0).removeprefix(".. math::"), *_taken(lines, _indented)]
            found.append(_display("\n".join(block)))
        elif _BULLET.match(lines[0]):
            found.append(_list(lines))
        elif lines[0].startswith(" "):
            inner = textwrap.dedent("\n".join(_taken(lines, _indented))).strip()
            escaped = html.escape(inner, quote=False)
            found.append(f"<pre>{escaped}</pre>" if literal else page(inner))
        else:
            block = [lines.pop(0), *_taken(lines, _continued)]
            literal = block[-1].endswith("::")
            found.append(_paragraph(block))
            continue
        literal = False
    return "\n".join(found)


def _taken(lines: list[str], wanted) -> list[str]:  # type: ignore[no-untyped-def]
    """Remove the first lines that are wanted, and return them."""
    block = list(takewhile(wanted, lines))
    del lines[: len(block)]
    return block


def _indented(line: str) -> bool:
    return not line.strip() or line.startswith(" ")


def _continued(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(".. math::")


def _paragraph(block: list[str]) -> str:
    if len(block) == 2 and re.fullmatch(r"([-=~^])\1{2,}", block[1].strip()):
        return f"<h4>{inline(block[0])}</h4>"
    words = re.sub("::$", ":", " ".join(line.strip() for line in block))
    return f"<p>{inline(words)}</p>" if words != ":" else ""


def _list(lines: list[str]) -> str:
    items = []
    while lines and (match := _BULLET.match(lines[0])):
        mark, first = match[0].strip(), lines.pop(0)[match.end() :]
        body = textwrap.dedent("\n".join(_taken(lines, _indented)))
        mark = "" if mark in "-*" else f"{html.escape(mark)} "
        items.append(f"<li>{mark}{page((first + chr(10) + body).strip())}</li>")
    return f"<ul>{''.join(items)}</ul>"


# -- ASCII -----------------------------------------------------------------------------------------

_SIGNS = {
    "σ": "sigma", "ρ": "rho", "φ": "phi", "ψ": "psi", "ν": "nu", "δ": "delta", "κ": "kappa",
    "ε": "eps", "π": "pi", "∞": "infinity", "≤": "<=", "≥": ">=", "→": "->", "−": "-", "–": "-",
    "—": "-", "×": "x", "∇": "grad", "∂": "d", "∫": "int", "‖": "||", "²": "^2", "·": ".",
    "\u2019": "'",
}  # fmt: skip
_COMMANDS = {
    "le": "<=", "leq": "<=", "ge": ">=", "geq": ">=", "to": "->", "infty": "infinity",
    "nabla": "grad", "partial": "d", "cdot": ".", "times": "x", "quad": " ", "sim": "~",
    "varepsilon": "eps", "approx": "~", "propto": "~",
}  # fmt: skip


def plain(text: str) -> str:
    """Text with formulas between dollars as ASCII that can be read aloud."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text).replace("``", "")
    parts = text.split("$")
    parts[1::2] = [_without_tex(part) for part in parts[1::2]]
    text = "".join(_SIGNS.get(c, c) for c in "".join(parts))
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _without_tex(formula: str) -> str:
    formula = formula.replace(r"\|", "||").replace("~", " ")
    formula = re.sub(r"\\(left|right|[bB]ig+[lrm]?|math\w+|text|operatorname)\b", "", formula)
    formula = re.sub(r"\\[,;:! ]", " ", formula)
    formula = re.sub(r"\\[td]?frac\s*(\w)\s*(\w)", r"\1/\2", formula)
    formula = re.sub(r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", _fraction, formula)
    formula = re.sub(r"\\([a-zA-Z]+)\s*", lambda m: f" {_COMMANDS.get(m[1], m[1])} ", formula)
    formula = re.sub(r"\{([\w.]+)\}", r"\1", formula.replace("\\", ""))
    formula = re.sub(r" +", " ", formula)
    formula = re.sub(r" (?=[_^,.)}\]|])|(?<=[-+/(\[|{_^]) ", "", formula)
    return re.sub(r"(?<=\w) (?=\()", "", formula).strip()


def _fraction(match: re.Match[str]) -> str:
    top, bottom = (f"({m})" if re.search(r"[-+ /]", m) else m for m in match.groups())
    return f"{top}/{bottom}"
