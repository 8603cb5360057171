"""A year of use in minutes, with housekeeping after each day: `python -m tests.operations.simulated_year`.

It prints what was written and what is left, and how long transfers took beside housekeeping and without it.

Users log in every 30 days and refresh their tokens every day, some reset their password, and they make transfers with
idempotency keys. These rows are written in SQL, without balances; the clock stands still for a day at a time. On some
days a client makes real transfers through the application while housekeeping works, and as many again afterwards.
"""

import os
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from backend.infrastructure.migrations import migrate, write_gate
from backend.operations import housekeeping as module
from backend.operations.housekeeping import Housekeeping
from backend.settings import Settings
from tests.conftest import SECRET, Api
from tests.wirings import make_app

PAUSE_SECONDS = module.PAUSE_SECONDS
DAY = 86_400_000  # milliseconds
START = 1_700_000_000_000
AUDIT_KEEP_DAYS = 30
ID = "printf('%012x%012x', {time}, {number})"  # sorts by time
OF_THE_DAY = f"id BETWEEN {ID.format(time=':now', number='0')} AND {ID.format(time=':now', number=':transfers')}"
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)"

USERS = f"""
{NUMBERS.format(count=":users")} INSERT INTO users
    SELECT 'u' || i, 'u' || i, 'u' || i, 'User', 'user', 'user', 1, 1, 1, 'none', :now, :now FROM n;
INSERT INTO accounts SELECT 'a' || id, 'user', id, 'EUR', 0, :now FROM users;
CREATE TEMP TABLE refreshes (session, old, new, expires_at);
"""
ONE_DAY = f"""
INSERT INTO sessions
    SELECT {ID.format(time=":now", number="substr(id, 2)")}, id, 1, 'Firefox', '10.0.0.1', '10.0.0.1', :now, :now,
           :now + 7 * {DAY}, NULL
    FROM users WHERE id LIKE 'u%' AND (substr(id, 2) + :day) % 30 = 0;
INSERT INTO refresh_tokens
    SELECT randomblob(32), id, :now / 1000, expires_at / 1000, 'k', NULL, NULL, NULL
    FROM sessions WHERE created_at = :now;
DELETE FROM refreshes;
INSERT INTO refreshes
    SELECT session_id, token_hash, randomblob(32), min(:now + 7 * {DAY}, created_at + 30 * {DAY}) / 1000
    FROM refresh_tokens JOIN sessions ON sessions.id = session_id
    WHERE used_at IS NULL AND created_at BETWEEN :now - 29 * {DAY} AND :now - 1;
INSERT INTO refresh_tokens
    SELECT new, session, :now / 1000, refreshes.expires_at, 'k', NULL, NULL, NULL FROM refreshes;
UPDATE refresh_tokens SET used_at = :now, nonce = zeroblob(16), successor = new
    FROM refreshes WHERE token_hash = old;
UPDATE sessions SET last_used_at = :now, expires_at = refreshes.expires_at * 1000 FROM refreshes WHERE id = session;

{NUMBERS.format(count=":transfers")} INSERT INTO transactions
    SELECT {ID.format(time=":now", number="i")}, 'transfer', 'au' || ((i * 7 + :day) % :users),
           'au' || ((i * 7 + :day + 1) % :users), 100, 'EUR', NULL, NULL, :now
    FROM n;
INSERT INTO entries SELECT from_account_id, id, -amount FROM transactions WHERE {OF_THE_DAY};
INSERT INTO entries SELECT to_account_id, id, amount FROM transactions WHERE {OF_THE_DAY};
INSERT INTO idempotency_keys
    SELECT substr(from_account_id, 2), cast(id AS BLOB), zeroblob(32), '{{"id": "' || id || '", "amount": 100}}', :now
    FROM transactions WHERE {OF_THE_DAY};

INSERT INTO password_resets
    SELECT {ID.format(time=":now", number="substr(id, 2)")}, id, :now, NULL
    FROM users WHERE id LIKE 'u%' AND (substr(id, 2) + :day) % 100 = 0;
INSERT INTO reset_requests SELECT id, user_id, :now FROM password_resets WHERE created_at = :now AND random() % 2;

INSERT INTO outbox (id, name, resource_type, resource_id, user_id, request_id, payload, created_at)
    SELECT 't' || id, 'transfer.created', 'transaction', id, 'u0', '-', '{{"amount": 100, "currency": "EUR"}}', :now
    FROM transactions WHERE {OF_THE_DAY}
    UNION ALL SELECT 's' || id, 'session.created', 'session', id, user_id, '-', '{{}}', :now
    FROM sessions WHERE created_at = :now
    UNION ALL SELECT 'p' || id, 'password.reset_requested', 'user', user_id, user_id, '-', '{{}}', :now
    FROM password_resets WHERE created_at = :now;
INSERT INTO deliveries SELECT seq, 'webhook', 100, NULL, NULL FROM outbox WHERE created_at = :now AND seq % 100 = 0;
INSERT INTO mails SELECT id, user_id, name, 'x', 'x', :now FROM outbox WHERE created_at = :now AND id LIKE 'p%';
INSERT INTO audit
    SELECT {ID.format(time=":now", number="seq")}, user_id, name, resource_type, resource_id, '-', :now
    FROM outbox WHERE created_at = :now;
"""
# The rows of the real client have ids of the real time, which is later than the simulated one: their turn comes later.
OF_CLIENT = f"id > printf('%012x', :now + {DAY})"
# Of each table, the rows that a request may still ask for.
LIVES = {
    "sessions": f"created_at > :now - 30 * {DAY} OR {OF_CLIENT}",
    "refresh_tokens": "expires_at > :now / 1000",
    "password_resets": f"created_at > :now - {DAY} / 48",
    "reset_requests": f"created_at > :now - 7 * {DAY}",
    "idempotency_keys": f"created_at > :now - {DAY}",
    "outbox": f"created_at > :now - 7 * {DAY}",
    "mails": f"created_at > :now - 7 * {DAY}",
    "deliveries": "seq IN (SELECT seq FROM outbox)",
    "audit": f"created_at > :now - {AUDIT_KEEP_DAYS} * {DAY} OR {OF_CLIENT}",
    "cache_invalidations": "seq > (SELECT max(seq) FROM cache_invalidations) - 10000",
}


class Clock:
    """Stands still until it is set."""

    now = START

    def __call__(self) -> float:
        return self.now / 1000


class Year:
    """A new database at `path`, with an application and housekeeping on it."""

    def __init__(self, path: Path, users: int, transfers_a_day: int) -> None:
        migrate(path)
        self.clock = Clock()
        settings = Settings(
            path, (SECRET,), bcrypt_rounds=4, rate_limit_default=None, rate_limit_auth=None,
            audit_keep_days=AUDIT_KEEP_DAYS,
        )  # fmt: skip
        self.api = Api(make_app(settings, self.clock, wiring="production"))
        self.housekeeping = Housekeeping(settings, self.api.app.database)
        self.written: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()
        self.alone: list[float] = []  # seconds that a client waited for the answer to a transfer
        self.beside: list[float] = []  # the same while housekeeping works
        self._path, self._values = path, {"users": users, "transfers": transfers_a_day}
        self._day = 0

    def run(self, days: int, measured: int = 0) -> None:
        """Measure real transfers every `measured` days. Only then are there pauses between batches."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as sqlite:
            sqlite.execute("PRAGMA synchronous = OFF")
            self._write(sqlite, USERS)
            for self._day in range(days):
                self.clock.now += DAY
                self._write(sqlite, ONE_DAY)
                if measured and self._day % measured == measured - 1:
                    self._measure()
                self.deleted.update(self.housekeeping.tidy())

    def dead(self) -> dict[str, int]:
        """The number of rows of each table that no request asks for any more."""
        return {table: self._count(table, f"NOT ({lives})") for table, lives in LIVES.items()}

    def left(self) -> dict[str, int]:
        return {table: self._count(table, "1") for table in LIVES}

    def _count(self, table: str, condition: str) -> int:
        with self.api.app.database.snapshot() as tx:
            return tx.rows(f"SELECT count(*) FROM {table} WHERE {condition} AND :now", now=self.clock.now)[0][0]

    def _write(self, sqlite: sqlite3.Connection, script: str) -> None:
        values = {**self._values, "now": self.clock.now, "day": self._day}
        with write_gate(self._path):
            sqlite.execute("BEGIN IMMEDIATE")
            for statement in script.split(";\n")[:-1]:
                count = sqlite.execute(statement, values).rowcount
                self.written[statement.partition("INTO ")[2].split(" ")[0].strip()] += max(0, count)
            sqlite.execute("COMMIT")

    def _measure(self) -> None:
        """Make transfers while housekeeping has its round, and as many without it.

        First the disk takes the day's rows, which were written without waiting for it: otherwise the first checkpoint
        would write them, too, and a transfer would wait 70 ms for it.
        """
        os.sync()
        admin = self.api.admin(f"Admin{self._day}")
        accounts = [self.api.account(admin, balance=10**9, admin=admin) for _ in range(2)]

        def transfer() -> float:
            body = {"fromAccountId": accounts[0], "toAccountId": accounts[1], "amount": 1}
            began = time.perf_counter()
            answer = self.api.post("/transfers", admin, body, key=str(began))
            assert answer.status_code == 201, answer.text
            return time.perf_counter() - began

        thread = threading.Thread(target=lambda: self.deleted.update(self.housekeeping.tidy()))
        before, module.PAUSE_SECONDS = len(self.beside), PAUSE_SECONDS
        thread.start()
        while thread.is_alive():
            self.beside.append(transfer())
        module.PAUSE_SECONDS = 0
        self.alone += [transfer() for _ in range(len(self.beside) - before)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        year = Year(Path(folder) / "app.db", users=10_000, transfers_a_day=2740)
        began, module.PAUSE_SECONDS = time.monotonic(), 0
        year.run(365, measured=30)
        left, dead = year.left(), year.dead()
        print(f"{time.monotonic() - began:.0f} s")
        print(f"{'table':22}{'written':>12}{'left':>10}{'of them dead':>14}")
        for table in LIVES:
            print(f"{table:22}{year.written[table]:12,}{left[table]:10,}{dead[table]:14,}")
        for name, waits in (("alone", sorted(year.alone)), ("beside housekeeping", sorted(year.beside))):
            shown = ", ".join(f"{1000 * waits[int(len(waits) * share)]:.1f}" for share in (0.5, 0.99, 0.999))
            print(f"{len(waits)} transfers {name}: {shown} ms (half, 99 %, 99.9 %), longest {1000 * waits[-1]:.1f} ms")
        year.api.app.close()


if __name__ == "__main__":
    main()
