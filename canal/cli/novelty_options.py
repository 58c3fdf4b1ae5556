"""The options that say how novelty is judged, alike in every command that has them."""

from typing import Annotated

import typer

Alpha = Annotated[float | None, typer.Option(help="Share of known cells that may be called novel; 0.05 by default.")]
MinProbability = Annotated[
    float | None, typer.Option(metavar="P", help="Call cells novel that are less sure; scBERT's rule, 0.5 there.")
]
Transductive = Annotated[
    bool, typer.Option("--transductive", help="The paper's verdict: it depends on the other cells of the file.")
]
