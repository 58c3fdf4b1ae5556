"""A console of rich that shows text as text: no name of a type can move the cursor or colour what follows."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from canal.text import shown


class TextConsole(Console):
    """A console whose texts hold no commands for the terminal but rich's own, which stand apart from the text."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Render, and show the commands that a text holds instead of giving them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)
