-- The audit log: one row for each event, kept for ever unless AUDIT_KEEP_DAYS is set.
CREATE TABLE audit (
    id            TEXT PRIMARY KEY,             -- the event's, so a repeated delivery adds no row
    user_id       TEXT,                         -- the actor
    action        TEXT NOT NULL,                -- the event's name
    resource_type TEXT NOT NULL,
    resource_id   TEXT NOT NULL,
    request_id    TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A page of the log is one range, whatever it is filtered by: actor, action or both.
CREATE INDEX audit_of_user ON audit (user_id, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_of_user_by_action ON audit (user_id, action, id);
