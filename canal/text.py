"""Text that somebody else wrote - names of types, cells, genes and files - shown as text, wherever it is shown.

A name may be a formula to a spreadsheet, a command to a terminal, or markup to a page. Pages escape what they show by
their templates; here is what tables, terminals and Markdown need.
"""

import re
from collections.abc import Iterable

# A spreadsheet takes a cell that begins so for a formula (OWASP, CSV injection), also in its full-width form.
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
# What a terminal obeys: C0 but tab and newline, DEL, C1; and marks that turn the direction of the text behind them.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
LONGEST_IN_PICTURE = 40  # letters of a name in a picture, of which a page holds two beside each other
_MARKDOWN = re.compile(r"([\\`*\[\]<>!])")


def csv_text(text: str) -> str:
    """Return a text as it stands in a CSV file: behind an apostrophe where a spreadsheet would take it for a formula.

    A text that has apostrophes there already gets one more, so that `text_of_csv` gives every text back.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_csv(written: str) -> str:
    """Return the text that `csv_text` wrote; any other text stays as it is."""
    return written[1:] if written.startswith("'") and _FORMULA.match(written) else written


def csv_row(values: Iterable[object]) -> list[object]:
    """Return the values of a row with every text as `csv_text` writes it."""
    return [csv_text(value) if isinstance(value, str) else value for value in values]


def shown(text: str) -> str:
    """Return a text for a terminal: what would move the cursor, colour or turn the line is shown as U+FFFD."""
    return _COMMANDS.sub("\ufffd", text)


def markdown_text(text: str) -> str:
    """Return a text for Markdown, on one line, without markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(shown(text).split()))


def picture_text(text: object) -> str:
    """Return a name for a picture that matplotlib draws: as text on one line, cut where it is too long.

    matplotlib takes what stands between dollar signs for a formula, and leaves a name that begins with an underscore
    out of its legends.
    """
    line = " ".join(shown(str(text)).split())
    if len(line) > LONGEST_IN_PICTURE:
        line = line[: LONGEST_IN_PICTURE - 1] + "\u2026"
    line = line.replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
