"""A real PostgreSQL server on a free port, which a test may stop and restart."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.support.processes.redis_server import free_port

USER = "understudy"


def _binaries() -> Path | None:
    """Return the directory of initdb and postgres: on PATH, else the newest of Debian's."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


BINARIES = _binaries()


def missing() -> str | None:
    """Return the reason why no server can be started, or None."""
    if BINARIES is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and _runner() is None:
        return "PostgreSQL refuses to run as root, and there is no user `postgres` or no `setpriv` to run it as"
    return None


def _runner() -> list[str] | None:
    """Return the command prefix that drops root privileges; None if there is none."""
    if os.geteuid() != 0:
        return []
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam("postgres")
        if (setpriv := shutil.which("setpriv")) is not None:
            return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return None


class PostgresServer:
    """A server with a directory of its own; `stop` and `start` keep port and data."""

    def __init__(self) -> None:
        self.port = free_port()
        # Outside pytest's directory, which only root may enter when the tests run as root.
        self._directory = Path(tempfile.mkdtemp(prefix="understudy-postgres-"))
        self._runner = _runner() or []
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        if os.geteuid() == 0:
            shutil.chown(self._directory, "postgres", "postgres")
        self._run("initdb", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync", "--no-instructions")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _command(self, program: str, *arguments: str) -> list[str]:
        if BINARIES is None:
            raise RuntimeError("PostgreSQL is not installed")
        return [*self._runner, str(BINARIES / program), "-D", str(self._directory / "data"), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        # The locale that every system has: English messages, byte order.
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        done = subprocess.run(  # an installed program
            self._command(program, *arguments), cwd="/", env=environment, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()}")

    def start(self) -> None:
        arguments = [f"-p{self.port}", "-h127.0.0.1", "-k", "", "-F", "-c", "max_connections=100"]
        self._process = subprocess.Popen(  # the same
            self._command("postgres", *arguments),
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop at once, terminating all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def create_database(self, template: str | None = None) -> str:
        """Create an empty database, or a copy of the one at a URL, and return its URL."""
        self._count += 1
        name = f"test_{self._count}"
        source = "template1" if template is None else template.rpartition("/")[2]
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {source}".encode())
        return self.url(name)

    def drop_database(self, url: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)".encode())

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
