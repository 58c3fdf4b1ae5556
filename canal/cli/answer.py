"""How a command answers: JSON alone or text on stdout, everything else on stderr, exit code 2 for what a user can mend.

Progress is a bar with the time left on a terminal, a line now and then in a log, and silent beside JSON.
"""

import errno
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from canal.errors import CanalError, ConfigError
from canal.progress import SECONDS_BETWEEN_LINES, Late, Lines
from canal.text import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from canal.progress import Progress
    from canal.stages.layout import Layout
    from canal.workspace import Annotator, Workspace


USER_ERROR = 2
# What a disk, its rights or a limit of the system refuses, wherever it comes up: no bug of ours.
REFUSED = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
    }
)
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
PIPE_WIDTH = 120  # characters, where stdout is no terminal

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
# Options that several commands have.
GeneKey = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of var with the gene names.")]
LabelMap = Annotated[Path | None, typer.Option(metavar="CSV", help="Table of their name and our name.")]
DropLabels = Annotated[
    list[str] | None, typer.Option("--drop-label", metavar="NAME", help="Leave out cells of this label; repeatable.")
]
KeepLabels = Annotated[
    list[str] | None,
    typer.Option("--keep-label", metavar="NAME", help="A type though called other, doublet, ...; repeatable."),
]


@dataclass
class Session:
    """What every command is told, beside its own options.

    Attributes
    ----------
    layout
        Where the workspace is; it need not exist.
    explicit
        Whether it was named with ``-C``.
    as_json
        Whether JSON was asked for.
    stdout
        Where the answer goes.
    """

    layout: "Layout"
    explicit: bool = False
    as_json: bool = False
    stdout: TextIO = field(default_factory=lambda: sys.stdout)

    def workspace(self, *, create: bool = False, anywhere: bool = False) -> "Workspace":
        """Open the workspace.

        Parameters
        ----------
        create
            A folder that is empty or new will do: what is written first makes it a workspace.
        anywhere
            Any folder will do: the method that is called refuses what it cannot use.
        """
        layout = self.layout if anywhere else self.layout.require(or_vacant=create)
        from canal.workspace import Workspace

        return Workspace(layout)

    def annotator(self, model: str | None, stage: int | None) -> "Annotator":
        """Return what annotates: a model that is named, or the workspace.

        Raises
        ------
        ConfigError
            If a stage is named beside the model.
        """
        if model is None:
            return self.workspace()
        if stage is not None:
            message = f"Both stage {stage} and {model} are named. Name one of them."
            raise ConfigError(message)
        from canal.workspace import load_model

        return load_model(model)

    def print(self, answer: "Answer") -> None:
        """Print an answer in the form that was asked for."""
        if answer.data is None:
            return
        if self.as_json:
            self.stdout.write(json.dumps(answer.data, indent=2, default=plain) + "\n")
        else:
            from canal.cli.console import TextConsole

            width = None if self.stdout.isatty() else PIPE_WIDTH
            # Names of types are text, whatever brackets and colons they have.
            console = TextConsole(file=self.stdout, width=width, markup=False, emoji=False, highlight=False)
            for part in answer.parts:
                console.print(part, soft_wrap=isinstance(part, str))
        self.stdout.flush()


@dataclass(frozen=True)
class Answer:
    """The answer of a command.

    Attributes
    ----------
    data
        Values for JSON; ``None`` where everything was printed already.
    parts
        The same for people: lines and tables.
    exit_code
        Not 0 where the answer is bad news.
    """

    data: Mapping[str, Any] | None
    parts: "Sequence[RenderableType]" = ()
    exit_code: int = 0


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a function as a command that has ``--json`` and an example in its help.

    Parameters
    ----------
    app
        The group that the command belongs to.
    name
        Name of the command.
    example
        A command line that works, shown at the end of the help.

    Returns
    -------
    A decorator; the function takes a `Session` first and returns an `Answer`.
    """

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        def run(ctx: typer.Context, as_json: bool, **options: Any) -> None:
            session: Session = ctx.obj
            session.as_json = as_json
            session.stdout = claim_stdout()
            answer = _call(function, session, options)
            session.print(answer)
            raise typer.Exit(answer.exit_code)

        # Typer takes help and options from the function that it calls.
        run.__doc__ = function.__doc__
        run.__name__ = function.__name__
        _show_options(run, function)
        app.command(name, epilog=f"Example: {example}")(run)
        return function

    return register


def claim_stdout() -> TextIO:
    """Return stdout for the answer alone; what libraries print from now on goes to stderr.

    It is not given back: what C libraries have buffered comes out when the process ends.
    """
    # What Python prints.
    stdout = sys.stdout
    stdout.flush()
    sys.stdout = sys.stderr
    try:
        descriptor = stdout.fileno()
    except OSError:  # captured, in a test
        return stdout
    # What C libraries and child processes print, to the descriptor itself.
    own_descriptor = os.dup(descriptor)
    os.dup2(2, descriptor)
    return os.fdopen(own_descriptor, "w", encoding="utf-8")


def plain(value: Any) -> Any:
    """Return a value that JSON knows, of one that it does not."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, set | frozenset) else str(value)


def _call(function: Callable[..., Answer], session: Session, options: Mapping[str, Any]) -> Answer:
    """Call a command; an error that the user can mend, a library that is missing, and Ctrl-C, become an answer."""
    try:
        return function(session, **options)
    except CanalError as error:
        return _refusal(session, str(error), type(error).__name__)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in {"", "canal"}:
            raise
        message = f"This needs {missing}, which is not installed here. Install all of canal: pip install canal"
        return _refusal(session, message, "ConfigError")
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        message = (
            f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}. Stages are kept whole "
            "or not at all, and no file stands half written under its name. Check space, limits and rights, and run "
            "this again."
        )
        return _refusal(session, message, "OSError")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return _failure(session, {"error": "stopped", "kind": "KeyboardInterrupt"}, INTERRUPTED)


def _refusal(session: Session, message: str, kind: str) -> Answer:
    """Tell what a user can mend."""
    sys.stderr.write(f"error: {shown(message)}\n")
    return _failure(session, {"error": message, "kind": kind}, USER_ERROR)


def _failure(session: Session, data: Mapping[str, Any], exit_code: int) -> Answer:
    return Answer(data if session.as_json else {}, exit_code=exit_code)


def _show_options(run: Callable[..., None], function: Callable[..., Answer]) -> None:
    """Show Typer the function's options and ``--json`` instead of ``**options``."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    _session, *options = inspect.signature(function, eval_str=True).parameters.values()
    for option in options:
        parameters.append(option.replace(kind=keyword))
    parameters.append(inspect.Parameter("as_json", keyword, annotation=Json, default=False))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def short_path(path: Path) -> str:
    """Return a path relative to the current folder where it is below it, else as it was given."""
    try:
        return str(path.resolve().relative_to(Path.cwd())) or "."
    except ValueError:
        return str(path)


class Bar:
    """A bar with the time left, on stderr."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, total_steps: int, description: str) -> None:
        """Show the bar of a new piece of work."""
        from rich import progress

        from canal.cli.console import TextConsole

        self.close()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=TextConsole(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(description, total=total_steps, note="")

    def advance(self, steps: int, note: str = "") -> None:
        """Move the bar."""
        if self._bar is None or self._task is None:
            return
        self._bar.update(self._task, advance=steps)
        if note:
            self._bar.update(self._task, note=note)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def watcher(session: Session) -> "Progress":
    """Return the progress that suits where stderr goes; with ``--json`` a log is told of long work alone."""
    if sys.stderr.isatty():
        return Bar()
    return Late(Lines(), SECONDS_BETWEEN_LINES) if session.as_json else Lines()
