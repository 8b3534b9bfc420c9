r"""Docstrings and claims as HTML with formulas drawn in it, and as plain ASCII for a terminal.

Of reStructuredText: paragraphs, ``.. math::``, ``:math:``, literals, emphasis, lists and indented
blocks; formulas between dollars as well.
"""

import functools
import html
import re
import textwrap
import unicodedata
from collections.abc import Callable
from itertools import takewhile

SIZE = 20.0  # of a formula's letters in its own drawing, which is scaled to the text around it


def check() -> None:
    """Refuse to go on without what draws formulas.

    Raises:
        ImportError: If ziamath is not installed.
    """
    try:
        import ziamath  # noqa: F401
    except ImportError:
        raise ImportError(
            "--report draws formulas with ziamath: pip install 'fpcontrol[report]' (or ziamath)."
        ) from None


# -- HTML ------------------------------------------------------------------------------------------

_BULLET = re.compile(r"(?:-|\*|\(\w{1,3}\)|\d+\.|\[\d+\])\s+")
_INLINE = re.compile(
    r":math:`(?P<role>[^`]+)`|\$(?P<dollars>[^$]+)\$|``(?P<literal>.+?)``"
    r"|\*\*(?P<strong>[^*]+)\*\*|(?<![\w*])\*(?P<emphasis>[^*\s][^*]*)\*(?![\w*])",
    re.DOTALL,
)
_NAMES = r"(\\(?:sin|cos|tan|sinh|cosh|tanh|log|exp)(?![a-z]))"  # in need of thin spaces around
_BEFORE = re.compile(r"(?<=[a-zA-Z0-9})])\s*" + _NAMES)
_BEHIND = re.compile(_NAMES + r"\s*(?=[a-zA-Z0-9]|\\(?!left|[,^]))")
_EMPTY = re.compile(r'<symbol id="([^"]+)"[^>]*/>')
_SYMBOL = re.compile(r'<symbol id="([^"]+)".*?</symbol>', re.DOTALL)


class Markup:
    """Turns text into HTML; keeps the outlines of letters, which all formulas of a page share.

    Attributes:
        symbols: Outlines by name; ``definitions`` has to stand in the page once.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, str] = {}

    @property
    def definitions(self) -> str:
        """Letters' outlines, for a ``<defs>`` anywhere in the page."""
        return "".join(self.symbols.values())

    def formula(self, latex: str, display: bool = False) -> str:
        """A formula in LaTeX as an ``<svg>`` element; as it was typed if it cannot be drawn."""
        label = html.escape(" ".join(latex.split()))
        try:
            text, low = _drawn(latex, display)
        except Exception:  # of whatever kind the libraries below raise
            return f'<code class="undrawn">{label}</code>'
        for name in _EMPTY.findall(text):  # signs without a form, such as that of application
            text = re.sub(f'<use href="#{name}"[^>]*/>', "", text)
        text = _EMPTY.sub("", text).replace(' fill="black"', "")
        self.symbols |= {m[1]: m[0] for m in _SYMBOL.finditer(text)}
        text = _SYMBOL.sub("", text)
        width, height, box = re.search(
            r'width="([\d.]+)" height="([\d.]+)" viewBox="([^"]+)"', text
        ).groups()  # type: ignore[union-attr]  # every svg of ziamath begins so
        style = f"width:{float(width) / SIZE:.3f}em;height:{float(height) / SIZE:.3f}em"
        style += "" if display else f";vertical-align:{low / SIZE:.3f}em"
        head = f'<svg class="math" role="img" aria-label="{label}" viewBox="{box}" style="{style}">'
        return head + text[text.index(">") + 1 :]

    def inline(self, text: str) -> str:
        """Text with formulas, literals and emphasis as HTML."""
        parts, end = [], 0
        for match in _INLINE.finditer(text):
            parts.append(html.escape(text[end : match.start()], quote=False))
            kind, content = match.lastgroup, str(match[match.lastgroup or 0])
            if kind in ("role", "dollars"):
                parts.append(self.formula(content))
            else:
                tag = {"literal": "code", "strong": "strong", "emphasis": "em"}[str(kind)]
                parts.append(f"<{tag}>{html.escape(content, quote=False)}</{tag}>")
            end = match.end()
        return "".join([*parts, html.escape(text[end:], quote=False)])

    def page(self, text: str) -> str:
        """A docstring as HTML."""
        lines, found, literal = text.expandtabs().splitlines(), [], False
        while lines:
            if not lines[0].strip():
                lines.pop(0)
                continue
            if lines[0].startswith(".. math::"):
                block = [lines.pop(0).removeprefix(".. math::"), *_taken(lines, _indented)]
                found.append(self._display("\n".join(block)))
            elif _BULLET.match(lines[0]):
                found.append(self._list(lines))
            elif lines[0].startswith(" "):
                inner = textwrap.dedent("\n".join(_taken(lines, _indented))).strip()
                escaped = html.escape(inner, quote=False)
                found.append(f"<pre>{escaped}</pre>" if literal else self.page(inner))
            else:
                block = [lines.pop(0), *_taken(lines, _continued)]
                literal = block[-1].endswith("::")
                found.append(self._paragraph(block))
                continue
            literal = False
        return "\n".join(found)

    def _display(self, text: str) -> str:
        """A ``.. math::`` block: a line for each row, with its tag (after ``&&``) on the right."""
        text = re.sub(r"\\(begin|end)\{(aligned|align\*?|gathered)\}", "", text.strip())
        if "{cases}" in text:
            rows = re.split(r"\n\s*\n", text)
        else:
            rows = re.split(r"\\\\(?:\[\w+\])?|\n\s*\n", text)
        shown = []
        for row in filter(str.strip, rows):
            formula, *tag = row.split("&&")
            if "{cases}" not in formula:
                formula = formula.replace("&", " ")
            name = f'<span class="tag">{html.escape(tag[0].strip())}</span>' if tag else ""
            shown.append(f'<div class="formula">{self.formula(formula, True)}{name}</div>')
        return "".join(shown)

    def _paragraph(self, block: list[str]) -> str:
        if len(block) == 2 and re.fullmatch(r"([-=~^])\1{2,}", block[1].strip()):
            return f"<h4>{self.inline(block[0])}</h4>"
        if len(block) == 1 and re.fullmatch(r"\w+:", block[0].strip()):  # a section, Google style
            return f"<h4>{block[0].strip()[:-1]}</h4>"
        words = re.sub("::$", ":", " ".join(line.strip() for line in block))
        return f"<p>{self.inline(words)}</p>" if words != ":" else ""

    def _list(self, lines: list[str]) -> str:
        items = []
        while lines and (match := _BULLET.match(lines[0])):
            mark, first = match[0].strip(), lines.pop(0)[match.end() :]
            more = _taken(lines, lambda line: bool(line.strip()) and not _BULLET.match(line))
            body = textwrap.dedent("\n".join([*more, *_taken(lines, _indented)]))
            inner = self.page(f"{first}\n{body}".strip())
            if mark not in "-*":
                inner = f'<span class="mark">{mark}</span>{inner}'
            items.append(f"<li>{inner}</li>")
        kind = "ul" if mark in "-*" else 'ul class="marked"'
        return f"<{kind}>{''.join(items)}</ul>"


@functools.cache
def _drawn(latex: str, display: bool) -> tuple[str, float]:
    """SVG of a formula, and how far it reaches below the line."""
    import ziamath

    # Delimiters grow with what is between them; sizes given by hand are not known here.
    latex = re.sub(r"\\[bB]ig+[lrm]?(?![a-zA-Z])", "", " ".join(latex.split()))
    latex = _BEFORE.sub(r"\\,\1", _BEHIND.sub(r"\1\\,", latex))
    formula = ziamath.Latex(latex, size=SIZE, inline=not display)
    return formula.svg(), formula.getyofst()


def _taken(lines: list[str], wanted: Callable[[str], bool]) -> list[str]:
    """Remove the first lines that are wanted, and return them."""
    block = list(takewhile(wanted, lines))
    del lines[: len(block)]
    return block


def _indented(line: str) -> bool:
    return not line.strip() or line.startswith(" ")


def _continued(line: str) -> bool:
    return not _indented(line) and not line.startswith(".. math::")


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
    # What a command is replaced by must not run into the name of another in front of it.
    formula = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"\\sqrt(\1)", formula)
    formula = re.sub(r"\\[td]?frac\s*(\w)\s*(\w)", r" \1/\2", formula)
    formula = re.sub(r"\\[td]?frac\s*(\w)\s*(?=\{)", r"\\frac{\1}", formula)
    formula = re.sub(r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", _fraction, formula)
    formula = re.sub(r"\\([a-zA-Z]+)\s*", lambda m: f" {_COMMANDS.get(m[1], m[1])} ", formula)
    formula = re.sub(r"\{([\w.]+)\}", r"\1", formula.replace("\\", ""))
    formula = re.sub(r" +", " ", formula)
    formula = re.sub(r" (?=[_^,.)}\]|])|(?<=[-+/(\[{_^]) |(?<=\|) (?=\w)", "", formula)
    return re.sub(r"(?<=\w) (?=\()", "", formula).strip()


def _fraction(match: re.Match[str]) -> str:
    top, bottom = (f"({m})" if re.search(r"[-+ /\\]", m) else m for m in match.groups())
    return f" {top}/{bottom}"
