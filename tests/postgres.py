"""A Postgres server of one's own, for as long as it is needed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "ecom", "swordfish-4711"


def binaries() -> Path | None:
    """Where the programs of Postgres lie; Debian keeps them beside each other, and few of them on the path."""
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in places if (one / "initdb").is_file() and (one / "psql").is_file()), None)


@dataclass(frozen=True)
class Server:
    """One that answers on a socket, and asks for a password."""

    programs: Path
    folder: Path
    control: list[object]
    as_user: dict[str, object]

    def connection(self, database: str, password: str = PASSWORD) -> str:
        return f"host={self.folder} user={USER} password={password} dbname={database}"

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@/{database}?host={self.folder}"

    def start(self) -> None:
        self._told("start")

    def stop(self) -> None:
        """As a kill would: nothing is written that is not there."""
        self._told("stop", "-m", "immediate")

    def _told(self, *words: str) -> None:
        subprocess.run(
            list(map(str, [*self.control, *words])),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **self.as_user,
        )

    def ask(self, database: str, query: str) -> list[str]:
        """The lines of an answer."""
        told = [self.programs / "psql", "-XAtq", "-h", self.folder, "-U", USER, "-d", database, "-c", query]
        answer = subprocess.run(
            list(map(str, told)), env={**os.environ, "PGPASSWORD": PASSWORD}, check=True, capture_output=True, text=True
        )
        return answer.stdout.splitlines()


@contextmanager
def serving(settings: str = "-c fsync=off") -> Iterator[Server]:
    """A server in a folder that is gone afterwards; it never runs as root, which Postgres refuses."""
    programs = binaries()
    assert programs
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    root = os.geteuid() == 0
    as_user = {"user": pwd.getpwnam("nobody").pw_uid} if root else {}
    if root:
        os.chown(folder, as_user["user"], -1)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = folder / "data"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    begin = [programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "--no-sync"]
    here = f"-c listen_addresses='' -k {folder} {settings}"
    control = [programs / "pg_ctl", "-D", data, "-w", "-s", "-l", folder / "log", "-o", here]
    try:
        subprocess.run([*begin, "-E", "UTF8", "--locale", "C"], **quiet)
        server = Server(programs, folder, control, as_user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
