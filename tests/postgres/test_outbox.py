"""A look at the outbox costs what it finds, and not what is owed beside it."""

from backend.repositories import outbox

EVENTS = 20_000
FILL = [
    """INSERT INTO outbox (id, name, resource_type, resource_id, request_id, payload, created_at)
       SELECT n::text, 'x', 'thing', n::text, '', '{}', n FROM generate_series(1, :events) AS n""",
    "INSERT INTO deliveries SELECT seq, 'audit', 0, 0, NULL FROM outbox",
    "INSERT INTO deliveries SELECT seq, 'webhook', 0, 0, 'thing ' || id FROM outbox ORDER BY seq DESC LIMIT 10",
]
READ = """SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
          WHERE relname IN ('outbox', 'deliveries')"""


def rows_read_by(database, subscriber, limit):
    """How many deliveries a look finds, and how many rows of the tables it reads."""
    with database.transaction() as tx:
        ((before,),) = tx.rows(READ)  # of earlier transactions, which PostgreSQL counts once a second
        found = outbox.due(tx, subscriber, 1000, limit)
        ((after,),) = tx.rows(READ)
    return len(found), after - before


def test_a_look_reads_only_what_it_finds(database, outsider):
    with database.transaction() as tx:
        for statement in FILL:
            tx.rows(f"WITH filled AS ({statement} RETURNING 1) SELECT count(*) FROM filled", events=EVENTS)
    outsider.execute("ANALYZE outbox, deliveries")
    for subscriber, due in (("audit", 100), ("webhook", 10), ("absent", 0)):
        found, read = rows_read_by(database, subscriber, 100)
        assert (found, read <= 4 * 100) == (due, True), f"{read} rows for {subscriber}"
