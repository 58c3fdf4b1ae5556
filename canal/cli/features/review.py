"""`canal review`: the page where people decide, and `canal review export`."""

import getpass
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from canal.cli.answer import Answer, GeneKey, Session, command, short_path, watcher
from canal.errors import CanalError, ConfigError

if TYPE_CHECKING:
    from canal.review.review import Review

JOURNALS = "*.review.jsonl"  # the files of decisions beside the cells


class OpensByDefault(TyperGroup):
    """A group whose first word may be a file: `canal review cells.h5ad` is `canal review open cells.h5ad`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``open`` before what is no command of the group."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["open", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(
        cls=OpensByDefault,
        help="Decide on new and uncertain cells, on a local page: canal review FILE",
    )
    command(noun, "open", example="canal review open new.h5ad")(open_page)
    command(noun, "export", example="canal review export new.h5ad --out reviewed.h5ad")(export)
    app.add_typer(noun, name="review")


File = Annotated[Path, typer.Argument(metavar="FILE", help="File of cells, or result of `canal novel find`.")]
Who = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Who decides; else who is logged in.")]


def open_page(
    session: Session,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="File of cells, or result of `canal novel find`; else the one reviewed here."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of 127.0.0.1; else one that is free.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link and open nothing.")] = False,
    user: Who = None,
    basis: Annotated[str | None, typer.Option(metavar="KEY", help="Coordinates in obsm for the map.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with given labels.")] = None,
    gene_key: GeneKey = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Put earlier decisions aside and begin anew.")] = False,
) -> Answer:
    """Show the cells to decide on, on a page of this machine, and keep what people decide.

    The page is served on 127.0.0.1 alone; the link lets one browser in, once. It ends with Ctrl-C.
    """
    from canal.review.review import open_review
    from canal.review.web.serve import listening

    # What can be refused is refused before the work: the port first, then the file.
    chosen = file or _reviewed_here()
    name = _user(user)
    listener = listening(port)
    try:
        review = open_review(
            session.workspace(),
            chosen,
            basis=basis,
            labels=labels,
            gene_key=gene_key,
            fresh=fresh,
            progress=watcher(session),
        )
        try:
            _serve(session, review, listener, name, browser=not no_browser)
        finally:
            review.close()
    finally:
        listener.close()
    return Answer(None)


def _serve(session: Session, review: "Review", listener: Any, user: str, *, browser: bool) -> None:
    """Print the link, open the browser at it, and answer until Ctrl-C."""
    from canal.review.web.app import make_app
    from canal.review.web.security import ENTRANCE, Visitors
    from canal.review.web.serve import BrowserDoor, has_screen, serve

    port = int(listener.getsockname()[1])
    visitors = Visitors(cookie_name=f"canal_review_{port}")
    link = f"http://127.0.0.1:{port}{ENTRANCE}?token={visitors.invite(user)}"
    # The link is the answer; it is printed now, since the server runs on.
    counts = review.queue().counts
    groups = sum(counts.values())
    lines = [f"{review.title}: {review.cells:,} cells, {groups} groups to decide on", *review.notes]
    lines += [f"Open this link in a browser of this machine; it lets one in, once, as {user}:", link, "Ctrl-C ends it."]
    data = {"link": link, "port": port, "user": user, "cells": review.cells, "groups": groups, "notes": review.notes}
    session.print(Answer(data, lines))
    door = BrowserDoor()
    try:
        if browser and has_screen() and not door.open(link):
            sys.stderr.write("No browser could be opened here; open the link yourself.\n")
        # The first evidence needs the model and libraries: some seconds, while the browser starts.
        threading.Thread(target=_warm_up, args=(review,), daemon=True).start()
        serve(make_app(review, visitors, port), listener)
    finally:
        door.close()


def _warm_up(review: "Review") -> None:
    """Load what the first evidence needs."""
    with suppress(CanalError, OSError):  # the page says so where it asks for it
        review.warm_up()


def export(
    session: Session,
    file: File,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File of cells to write, .h5ad.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it where it is there.")] = False,
    approved: Annotated[bool, typer.Option("--approved", help="Only what a second person approved.")] = False,
    cas: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Document of the Cell Annotation Schema to write, too.")
    ] = None,
) -> Answer:
    """Print what was decided, and write the cells with `canal_reviewed` and `canal_reviewer`."""
    from canal.review.review import open_review

    if cas is not None and out is None:
        message = "--cas goes along with --out: name the file of cells to write, too."
        raise ConfigError(message)
    review = open_review(session.workspace(), file, progress=watcher(session))
    try:
        data = review.to_dict()
        lines = [] if review.history() else [f"Nothing was decided on {file} yet."]
        for state in review.queue().groups:
            lines.append(f"{state.group.id}: {state.group.cells:,} cells, {state.status} {state.name}".rstrip())
        if out is not None:
            written = review.write_reviewed(out, overwrite=overwrite, approved=approved, cas=cas)
            data = {**data, "out": str(out), "written": written}
            lines.append(f"written: {short_path(out)}")
    finally:
        review.close()
    return Answer(data, lines)


def _reviewed_here() -> Path:
    """Return the file that is reviewed in the current folder.

    Raises
    ------
    ConfigError
        If there is none, or more than one.
    """
    journals = sorted(Path.cwd().glob(JOURNALS))
    if len(journals) == 1:
        return journals[0].with_name(journals[0].name.removesuffix(JOURNALS[1:]))
    reviewed = ", ".join(path.name.removesuffix(JOURNALS[1:]) for path in journals[:5]) or "none"
    message = (
        f"No file was named, and the files reviewed in this folder are: {reviewed}. Name one: canal review FILE.h5ad"
    )
    raise ConfigError(message)


def _user(name: str | None) -> str:
    """Return who decides.

    Raises
    ------
    ConfigError
        If nobody can be told.
    """
    chosen = name
    if chosen is None:
        try:
            chosen = getpass.getuser()
        except (OSError, KeyError) as error:  # no such user is known to the system, as in some containers
            message = "Nobody is logged in by name. Say who decides with --user NAME."
            raise ConfigError(message) from error
    if not chosen.strip():
        message = "--user is empty. Say who decides."
        raise ConfigError(message)
    return chosen.strip()
