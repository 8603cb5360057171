"""Under gunicorn one worker keeps house, and another takes over when it is killed."""

import os
import signal
import sqlite3
from contextlib import closing

from tests.production.real_service import service
from tests.waiting import wait_until
from tests.watching import files_of

OLD_ROWS = """WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 249)
    INSERT INTO audit SELECT printf('%09d', i), NULL, 'thing.done', 'thing', '1', '-', 1000000000000 FROM n"""


def test_another_worker_takes_over_when_the_one_that_keeps_house_is_killed(tmp_path, database_path):
    lock, log = str(database_path.with_name("app.db-housekeeping")), tmp_path / "log"
    with (
        service(log, database_path, AUDIT_KEEP_DAYS="30") as server,
        closing(sqlite3.connect(database_path)) as outsider,
    ):

        def keepers():
            return [worker for worker in server.workers() if lock in files_of(worker)]

        wait_until(lambda: len(keepers()) == 1)
        (first,) = keepers()
        with outsider:
            outsider.execute(OLD_ROWS)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "deleted 250 audit" in log.read_text())
        assert outsider.execute("SELECT count(*) FROM audit").fetchall() == [(0,)]
