r"""Docstrings and claims as HTML with formulas in MathML, and as plain ASCII for a terminal.

Docstrings are reStructuredText; claims have formulas between dollars.
"""

import html
import re
import unicodedata


def check() -> None:
    """Refuse to go on without what turns docstrings into HTML.

    Raises:
        ImportError: If docutils is not installed.
    """
    try:
        import docutils  # noqa: F401
    except ImportError:
        raise ImportError(
            "--report sets formulas with docutils: pip install 'fpcontrol[report]' (or docutils)."
        ) from None


# -- HTML ------------------------------------------------------------------------------------------


def formula(latex: str) -> str:
    """A formula in LaTeX as MathML; as it was typed if it cannot be set."""
    from docutils.utils.math import MathError
    from docutils.utils.math.latex2mathml import tex2mathml

    try:
        return _dense(tex2mathml(latex))
    except MathError:
        return f'<code class="undrawn">{html.escape(latex)}</code>'


def inline(text: str) -> str:
    """Text with formulas between dollars, and literals, as HTML."""
    parts = re.split(r"\$([^$]+)\$", text)
    parts[::2] = [
        re.sub("``(.+?)``", r"<code>\1</code>", html.escape(part, quote=False))
        for part in parts[::2]
    ]
    parts[1::2] = [formula(part) for part in parts[1::2]]
    return "".join(parts)


def block(text: str) -> str:
    """A docstring as HTML."""
    from docutils.core import publish_parts

    settings = {
        "math_output": "MathML",
        "report_level": 2,  # what is wrong stands in the page
        "warning_stream": False,  # and nowhere else
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "embed_stylesheet": False,
        "stylesheet_path": "",
        "doctitle_xform": False,
        "initial_header_level": 4,
    }
    parts = publish_parts(text, writer="html5", settings_overrides=settings)
    return re.sub("<math.*?</math>", lambda m: _dense(m[0]), str(parts["body"]), flags=re.DOTALL)


def _dense(mathml: str) -> str:
    """Without the white space between elements."""
    return re.sub(r">\s+<", "><", mathml)


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
