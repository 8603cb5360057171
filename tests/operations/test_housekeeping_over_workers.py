"""Under gunicorn one worker keeps house, and another takes over when it is killed."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.production.real_service import service
from tests.waiting import wait_until
from tests.watching import files_of

OLD_ROWS = """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
    INSERT INTO audit SELECT printf('%09d', i), NULL, 'thing.done', 'thing', '1', '-', 1000000000000 FROM n"""


def add_old_rows(database: Path, count: int) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(OLD_ROWS, {"count": count})


def test_another_worker_takes_over_when_the_one_that_keeps_house_is_killed(tmp_path, database_path):
    lock, log = str(database_path.with_name("app.db-housekeeping")), tmp_path / "log"
    add_old_rows(database_path, 1)
    with service(log, database_path, AUDIT_KEEP_DAYS="30") as server:
        wait_until(lambda: "deleted 1 audit" in log.read_text())  # its next round comes in a minute
        keepers: list[int] = []
        while len(keepers) != 1:  # now and then the other one opens the file, too
            keepers = [worker for worker in server.workers() if lock in files_of(worker)]
        add_old_rows(database_path, 250)
        os.kill(keepers[0], signal.SIGKILL)
        wait_until(lambda: "deleted 250 audit" in log.read_text())
        with closing(sqlite3.connect(database_path)) as outsider:
            assert outsider.execute("SELECT count(*) FROM audit").fetchall() == [(0,)]
