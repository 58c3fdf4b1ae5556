"""`canal stage promote` and `canal stage rollback`: which stage annotates."""

from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command

if TYPE_CHECKING:
    from canal.stages.promotion import Promotion


def register(noun: typer.Typer) -> None:
    """Add the commands to `canal stage`."""
    command(noun, "promote", example="canal stage promote 2")(promote)
    command(noun, "rollback", example="canal stage rollback")(rollback)


def promote(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
) -> Answer:
    """Let stage N annotate; its files are checked first."""
    from canal.stages.promotion import promote as promote_stage

    return _answer(promote_stage(session.layout, number))


def rollback(session: Session) -> Answer:
    """Let the stage annotate that the one in use was learned from."""
    from canal.stages.promotion import roll_back

    return _answer(roll_back(session.layout))


def _answer(found: "Promotion") -> Answer:
    now = f"Stage {found.record.number}, {found.record.name}, annotates"
    if found.before == found.record.number:
        return Answer(found.to_dict(), [f"{now} already."])
    instead = f" instead of stage {found.before}" if found.before else ""
    return Answer(found.to_dict(), [f"{now} now{instead}."])
