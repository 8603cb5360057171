-- Events, written in the transaction that they describe and delivered after its commit.
CREATE TABLE outbox (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,  -- rises in the order of commits
    id            TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id   TEXT NOT NULL,                -- with its type: the aggregate, within which order is kept
    user_id       TEXT,                         -- the actor
    request_id    TEXT NOT NULL,
    payload       TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

-- What is owed to each subscriber. A row is deleted once its event has been delivered.
CREATE TABLE deliveries (
    seq        INTEGER NOT NULL REFERENCES outbox (seq) ON DELETE CASCADE,
    subscriber TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    due_at     INTEGER,                         -- 0: at once; -1: after an older event; NULL: never, a dead letter
    aggregate  TEXT,                            -- resource type and id; NULL where order does not matter
    PRIMARY KEY (seq, subscriber)
) STRICT, WITHOUT ROWID;

-- Finds what is due, at a cost that does not depend on what waits.
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at, seq) WHERE due_at IS NOT NULL;

-- Finds what waits behind an event of the same aggregate.
CREATE INDEX deliveries_waiting ON deliveries (subscriber, aggregate, seq) WHERE aggregate IS NOT NULL;

-- Counts dead letters.
CREATE INDEX deliveries_dead ON deliveries (due_at) WHERE due_at IS NULL;
