"""What the registry holds at one moment, as plain values, whoever read it."""

from dataclasses import dataclass, field

STAGE, NAME, PARENT = "canal.stage", "canal.name", "canal.parent"
TYPES, GENES, DATA_DIGEST = "canal.types", "canal.genes", "canal.data_digest"
RECORD, RECORD_DIGEST = "canal.record", "canal.record_digest"
MANIFEST_DIGEST = "canal.manifest_digest"
ALIAS, SETTLED, DRAFT, STATE = "canal.alias", "canal.settled", "canal.draft", "canal.state"
NOTE = "mlflow.note.content"  # what MLflow's page shows as the description of a run
USE = "canal.use."  # and a number: when the version came into use, counted over all versions of the model

CHAMPION, CANDIDATE = "champion", "candidate"


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """One version of the registered model: one committed stage."""

    version: int
    run_id: str
    tags: dict[str, str]

    @property
    def stage(self) -> int:
        """Number of the stage."""
        return int(self.tags[STAGE])

    @property
    def settled(self) -> bool:
        """Tell whether everything that follows the commit was done, too."""
        return SETTLED in self.tags

    @property
    def last_use(self) -> int:
        """When the version last came into use; 0 if it never did, or by an older canal."""
        counts = (key.removeprefix(USE) for key in self.tags if key.startswith(USE))
        return max((int(count) for count in counts if count.isdecimal()), default=0)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The committed stages, by number, and which aliases point where.

    Attributes
    ----------
    versions
        Those that canal committed, ascending by stage; others in the same model are left out.
    aliases
        Version of each alias.
    late
        Versions of a stage whose number another machine had taken just before. Version numbers are
        given out one after the other, so all readers agree which came first. They are taken back.
    """

    versions: list[StoredVersion] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    late: list[StoredVersion] = field(default_factory=list)

    @classmethod
    def of(cls, versions: list[StoredVersion], aliases: dict[str, int]) -> "Snapshot":
        """Keep what canal committed, in order."""
        ours = [v for v in versions if v.tags.get(STAGE, "").isdecimal()]
        first: dict[int, StoredVersion] = {}
        for stored in sorted(ours, key=lambda v: (v.stage, v.version)):
            first.setdefault(stored.stage, stored)
        late = [v for v in ours if first[v.stage] is not v]
        return cls(versions=list(first.values()), aliases=aliases, late=late)

    @property
    def unsettled(self) -> list[StoredVersion]:
        """Stages that were committed by a process that was killed right after."""
        return [v for v in self.versions if not v.settled]

    @property
    def in_use(self) -> StoredVersion | None:
        """Return the version that came into use last, as the versions' own tags tell it.

        Tags are only ever added, so that no machine can undo what another one did. Of two that came into use at the
        same moment all readers take the one that was committed later.
        """
        used = [v for v in self.versions if v.last_use]
        return max(used, key=lambda v: (v.last_use, v.version), default=None)

    @property
    def next_use(self) -> int:
        """Return the number of the next coming into use."""
        return max((v.last_use for v in self.versions), default=0) + 1

    @property
    def champion(self) -> int | None:
        """Number of the stage in use.

        It is the one that the alias names. While a commit is under way, or its process was killed before the alias
        was moved, the versions' tags decide: a stage that was committed as champion is it from its commit on, and a
        slower machine's alias does not count.
        """
        pending = [v for v in self.unsettled if v.tags.get(ALIAS) == CHAMPION]
        if pending:
            return (self.in_use or pending[-1]).stage
        by_version = {v.version: v.stage for v in self.versions}
        return by_version.get(self.aliases.get(CHAMPION, -1))
