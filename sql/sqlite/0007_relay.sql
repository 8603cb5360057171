-- What of the outbox is still owed to whom: a row goes when it has been delivered.
CREATE TABLE deliveries (
    seq        INTEGER NOT NULL REFERENCES outbox (seq) ON DELETE CASCADE,
    subscriber TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    due_at     INTEGER,                         -- NULL: given up after too many tries, a dead letter
    PRIMARY KEY (seq, subscriber)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_owed ON deliveries (subscriber, seq) WHERE due_at IS NOT NULL;

-- Who does what only one process may do at a time.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at INTEGER NOT NULL                 -- milliseconds of the machine's monotonic clock
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id            TEXT PRIMARY KEY,             -- the event's: however often it is delivered, it is one row
    user_id       TEXT,                         -- who did it
    action        TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id   TEXT NOT NULL,
    request_id    TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_of_user ON audit (user_id, id);
CREATE INDEX audit_by_action ON audit (action, id);

INSERT INTO deliveries (seq, subscriber, tries, due_at) SELECT seq, 'audit', 0, 0 FROM outbox;
