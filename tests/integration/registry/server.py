"""A real server of a lab on this machine: PostgreSQL, MLflow with passwords, artifacts that it serves.

PostgreSQL refuses to run as root, so that root starts it as another user.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER, PATIENCE = "admin", 180.0
DATABASE = "mlflow"
_OTHER_USERS = ("postgres", "nobody")
DEPLOYMENT = Path(__file__).parents[3] / "registry" / "server"


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest; ``None`` where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parents[1].name))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


@dataclass
class Server:
    """PostgreSQL and MLflow, until `stop`.

    Attributes
    ----------
    folder
        Everything they write.
    url
        Address of MLflow.
    password
        Of `USER`, who is the administrator.
    destination
        Where MLflow keeps artifacts; a folder of its own by default.
    environment
        Variables for MLflow, beside ours.
    database
        Where PostgreSQL is, as the variables that its own programs read.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="canal-server-")))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    destination: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    database: dict[str, str] = field(default_factory=dict)
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """Folder in which MLflow keeps what is sent to it."""
        return self.folder / "artifacts"

    @property
    def users(self) -> Path:
        """Database of users and passwords."""
        return self.folder / "auth" / "basic_auth.db"

    @property
    def log(self) -> str:
        """Everything that was said."""
        return "\n".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("*.log")))

    def start(self) -> None:
        """Start both, and wait until MLflow answers."""
        try:
            self._start_postgres()
            self.start_mlflow()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End both; nothing is left."""
        while self._processes:
            _end(self._processes.pop())
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_mlflow(self) -> None:
        """End MLflow; PostgreSQL goes on."""
        _end(self._processes.pop())

    def recreate_database(self) -> None:
        """Make MLflow's database anew, empty."""
        for program in ("dropdb", "createdb"):
            self._postgres_program(program, DATABASE, *(["--if-exists"] if program == "dropdb" else []))

    def _postgres_program(self, program: str, *words: str) -> None:
        programs = postgres_programs()
        assert programs is not None
        command = [programs / program, *words]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | self.database, cwd="/")

    def _start_postgres(self) -> None:
        programs = postgres_programs()
        assert programs is not None
        data, port, secret = self.folder / "data", _free_port(), self.folder / "password"
        data.mkdir(mode=0o700)
        self.folder.chmod(0o755)
        secret.write_text(self.password)
        who = _another_user()
        if who:
            shutil.chown(data, who)
            shutil.chown(secret, who)
        as_user = {"user": who} if who else {}
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "canal", "--auth=scram-sha-256", "--pwfile", secret, "--no-sync"],
            check=True, capture_output=True, cwd="/", **as_user,
        )  # fmt: skip
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": data, "fsync": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._run([programs / "postgres", "-D", data, *options], "postgres", cwd="/", **as_user)
        self.database = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "canal", "PGPASSWORD": self.password}
        _wait(lambda: self._postgres_program("psql", "--command=", "postgres"), self)
        self.recreate_database()

    def start_mlflow(self) -> None:
        """Start MLflow, at the same address as before if it ran before, and wait until it answers."""
        port = int(self.url.rpartition(":")[2]) if self.url else _free_port()
        self.url = f"http://127.0.0.1:{port}"
        ini = (DEPLOYMENT / "basic_auth.ini").read_text()
        self.users.parent.mkdir(exist_ok=True)
        (self.folder / "basic_auth.ini").write_text(ini.replace("/auth/basic_auth.db", str(self.users)))
        facts = self.database
        database = f"postgresql+psycopg2://canal:{self.password}@127.0.0.1:{facts['PGPORT']}/{DATABASE}"
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **self.environment,
        }
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", database]
        command += ["--artifacts-destination", self.destination or str(self.artifacts)]
        self._run(command, "mlflow", env=environment, cwd=self.folder)
        _wait(lambda: urllib.request.urlopen(f"{self.url}/health", timeout=5).close(), self)

    def _run(self, command: list[Any], name: str, **options: Any) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        self._processes.append(process)

    def check(self) -> None:
        """Assert that both still run."""
        for process in self._processes:
            assert process.poll() is None, f"{process.args} ended:\n{self.log}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _another_user() -> str | None:
    """Return who PostgreSQL runs as, ``None`` for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _OTHER_USERS if name in known)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(knock: Any, server: Server) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            knock()
            return
        except (OSError, subprocess.CalledProcessError):
            server.check()
            assert time.monotonic() < deadline, f"no answer after {PATIENCE} s:\n{server.log}"
            time.sleep(0.2)
