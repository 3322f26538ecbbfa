r"""A table to publish, as Markdown and as LaTeX, with every character of its texts escaped.

The LaTeX is plain ASCII, so that any engine sets it; its preamble needs booktabs alone.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NOTHING, MINUS = "\u2013", "\u2212"  # the first stands for what is undefined, or not there
MARKDOWN = re.compile(r"[\\`*_\[\]<>#|~&$]")
LATEX = {
    **{one: rf"\{one}" for one in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    # After the end of a row LaTeX takes a bracket or a star for its own.
    **{"[": "{[}", "]": "{]}", "*": "{*}", "`": "{`}", '"': '{"}'},
    **{NOTHING: r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "·": r"$\cdot$"},
    **{MINUS: "$-$", "±": r"$\pm$", "\u00d7": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$"},
    **{"°": r"$^\circ$", "½": r"$\frac12$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "²": "$^2$", "³": "$^3$", "µ": r"$\mu$"},
    **{"ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ł": r"\l{}"},
    **{"Ł": r"\L{}", "\u0131": r"\i{}", "œ": r"\oe{}", "Œ": r"\OE{}"},
}
ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308", "`'^~=u.\"", strict=True))
ACCENTS |= dict(zip("\u030a\u030b\u030c\u0327", "rHvc", strict=True))


@dataclass(frozen=True)
class PaperTable:
    """A table in plain text: nothing in it is escaped yet."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int  # how many of the first columns hold words; the others hold numbers
    notes: Sequence[str]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)  # row and column


def markdown(table: PaperTable) -> str:
    """The table as GitHub's Markdown, with its title above and its notes below."""
    sides = [":--" if column < table.words else "--:" for column in range(len(table.heads))]
    rows = [map(markdown_text, table.heads), sides, *_escaped(table, markdown_text, "**{}**")]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"- {markdown_text(note)}" for note in table.notes]
    return "\n".join([f"### {markdown_text(table.title)}", "", *lines, "", *notes, ""])


def latex(table: PaperTable) -> str:
    """The table as a LaTeX float: booktabs, its title as the caption, its notes below."""
    sides = "l" * table.words + "r" * (len(table.heads) - table.words)
    head, *rows = (
        " & ".join(row) + r" \\"
        for row in [map(latex_text, table.heads), *_escaped(table, latex_text, r"\textbf{{{}}}")]
    )
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip"]
    lines += [r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    lines += [rf"{latex_text(note)}\par" for note in table.notes]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table}", ""])


def _escaped(table: PaperTable, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """The rows in a language's own spelling."""
    return [
        [
            bold.format(escape(text)) if (at, column) in table.bold else escape(text)
            for column, text in enumerate(row)
        ]
        for at, row in enumerate(table.rows)
    ]


def markdown_text(text: str) -> str:
    r"""Text of which Markdown takes no character for its own, in one line.

    Examples
    --------
    >>> print(markdown_text("a|b_c*"))
    a\|b\_c\*
    """
    return MARKDOWN.sub(r"\\\g<0>", _one_line(text))


def latex_text(text: str) -> str:
    r"""Text of which LaTeX takes no character for its own, in one line of ASCII.

    Letters with accents become LaTeX's own; a character that no font of LaTeX has by itself is
    written as its number in Unicode, such as U+4E2D.

    Examples
    --------
    >>> print(latex_text("50 % of a_b, é, 中"))
    50 \% of a\_b, \'{e}, U+4E2D
    """
    composed = unicodedata.normalize("NFC", _one_line(text))
    # Two hyphens would become a dash, and two commas or apostrophes a quotation mark.
    return re.sub(r"([-,'])(?=\1)", r"\1{}", "".join(map(_latex_letter, composed)))


def _latex_letter(letter: str) -> str:
    if letter in LATEX:
        return LATEX[letter]
    if letter.isascii():
        return letter
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if base.isascii() and len(accents) == 1 and accents[0] in ACCENTS:
        return rf"\{ACCENTS[accents[0]]}{{{base}}}"
    return _number(letter)


def _one_line(text: str) -> str:
    """Text without line breaks, and without what a terminal or a reader of Markdown obeys."""
    one_line = " ".join(text.split())
    return "".join(one if one.isprintable() else _number(one) for one in one_line)


def _number(letter: str) -> str:
    return f"U+{ord(letter):04X}"
