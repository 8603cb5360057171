"""`make drill`: the whole way from a backup to a restored service, through the real command line and a real gunicorn.

Clients transfer money all the time. The database is backed up, the server killed, the database destroyed; the restore
is killed again and again, and then runs to its end. A new server must serve every transfer that was answered before the
backup's moment, with balanced books, and must refuse every login.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from backend.infrastructure.migrations import migrate
from backend.settings import Settings
from tests.cli.running import COMMAND, environment
from tests.conftest import PASSWORD, SECRET, Api, Person
from tests.production.load import Load
from tests.production.oracle import result
from tests.production.real_service import call, service
from tests.waiting import wait_until
from tests.wirings import make_app

KILLED_AT = """
import os, sys
folder, step = sys.argv.pop(1), int(sys.argv.pop(1))
count = 0
def watch(event, arguments):
    global count
    count += any(folder in str(argument) for argument in arguments)
    if count == step:
        os._exit(137)
sys.path.insert(0, sys.argv.pop(1))
from app import main
sys.addaudithook(watch)
main()
"""
KILLED = 137


class Drill:
    """A database with two accounts of Ada in `folder`, and the steps. `tell` gets a line after each step."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.database, self.backup, self._folder, self._tell = (
            folder / "live" / "app.db",
            folder / "backup.db",
            folder,
            tell,
        )
        migrate(self.database)
        settings = Settings(
            database_path=self.database, jwt_secrets=(SECRET,), bcrypt_rounds=4, rate_limit_default=None,
            rate_limit_auth=None,
        )  # fmt: skip
        app = make_app(settings)
        api = Api(app)
        self.ada, root = api.sign_up("Ada"), api.admin()
        self.accounts = api.account(self.ada, balance=1_000_000, admin=root), api.account(self.ada)
        app.close()

    def run(self, clients: int, every: int) -> None:
        """The whole drill. The restore is killed at each step whose number is a multiple of `every`."""
        acknowledged = self._back_up_under_load(clients)
        self._destroy()
        self._restore(every)
        self._check(acknowledged)

    def _back_up_under_load(self, clients: int) -> dict[str, str]:
        """Returns the transfers that were answered before the backup began."""
        with service(self._folder / "first.log", self.database) as server:
            load = Load(server, self.ada, self.accounts, clients)
            wait_until(lambda: len(load.acknowledged) > 200)
            before, load.longest = dict(load.acknowledged), 0.0
            self._tell(self._command("backup", str(self.backup)).stdout.strip())
            self._tell(f"longest wait of a transfer meanwhile: {load.longest * 1000:.0f} ms, {clients} clients")
            after = len(load.acknowledged)
            wait_until(lambda: len(load.acknowledged) > after + 100)
            refused = self._command("restore", str(self.backup), status=2)
            assert "in use" in refused.stderr
            os.killpg(server.process.pid, signal.SIGKILL)
            load.join()
        assert not load.refused, "a transfer was refused"
        self._tell(
            f"server killed: {len(before)} transfers were answered before the backup, {len(load.acknowledged)} in all"
        )
        return before

    def _destroy(self) -> None:
        """Overwrite the beginning of the database, and leave what the server has left."""
        with self.database.open("rb+") as file:
            file.write(random.Random(1).randbytes(8192))
        self._tell(f"database destroyed: {self._command('check', status=1).stderr.strip()}")

    def _restore(self, every: int) -> None:
        """Kill the restore at its steps, each time on a copy of what the crash has left, until one is not killed."""
        self._command("verify", str(self.backup))
        lost, step, status = self.database.read_bytes(), every, KILLED
        crashed = Path(shutil.copytree(self.database.parent, self._folder / "crashed"))
        while status == KILLED:
            shutil.rmtree(self.database.parent)
            shutil.copytree(crashed, self.database.parent)
            command = [
                sys.executable,
                "-c",
                KILLED_AT,
                str(self.database.parent),
                str(step),
                str(Path(COMMAND[1]).parent),
            ]
            status = subprocess.run(
                [*command, "restore", str(self.backup)], env=environment(self.database), stdout=subprocess.DEVNULL,
                timeout=60, check=False,
            ).returncode  # fmt: skip
            assert status in (0, KILLED)
            if self.database.read_bytes() != lost:
                assert self._command("check").returncode == 0
            step += every
        self._tell(f"restore killed {step // every - 2} times: always the old or the new database")
        self._tell(self._command("restore", str(self.backup)).stdout.strip())

    def _check(self, acknowledged: dict[str, str]) -> None:
        with service(self._folder / "second.log", self.database) as server:
            assert call(server, "GET", "/users/me", self.ada).status == 401
            pair = call(server, "POST", "/auth/login", None, {"email": self.ada.email, "password": PASSWORD}).data
            ada = Person(self.ada.id, self.ada.email, pair["accessToken"], pair["refreshToken"])
            load = Load(server, ada, self.accounts, clients=2, name="again")
            load.over = True
            load.join()
        assert result(self.database, acknowledged | load.acknowledged) == []
        self._tell("a new server serves: old logins are refused, books balance, no answered transfer is missing")

    def _command(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*COMMAND, *arguments], env=environment(self.database), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        return done


def main() -> None:
    began = time.monotonic()

    def tell(line: str) -> None:
        print("\n".join(f"{time.monotonic() - began:5.1f} s  {each}" for each in line.splitlines()), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        Drill(Path(folder), tell).run(clients=16, every=1)


if __name__ == "__main__":
    main()
