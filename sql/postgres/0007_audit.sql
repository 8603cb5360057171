-- The audit log: one row for each event, kept for ever unless AUDIT_KEEP_DAYS is set.
CREATE TABLE audit (
    id            text COLLATE "C" PRIMARY KEY,             -- the event's, so a repeated delivery adds no row
    user_id       text COLLATE "C",                         -- the actor
    action        text COLLATE "C" NOT NULL,                -- the event's name
    resource_type text COLLATE "C" NOT NULL,
    resource_id   text COLLATE "C" NOT NULL,
    request_id    text COLLATE "C" NOT NULL,
    created_at    bigint NOT NULL
);

-- A page of the log is one range, whatever it is filtered by: actor, action or both.
CREATE INDEX audit_of_user ON audit (user_id, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_of_user_by_action ON audit (user_id, action, id);
