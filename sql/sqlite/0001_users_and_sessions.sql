-- People and their logins. Times are milliseconds since 1970-01-01 UTC; ids are UUIDv7 texts, so they sort by time.
CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL,                -- as typed
    email_key     TEXT NOT NULL UNIQUE,         -- case-folded: what makes two addresses the same
    name          TEXT NOT NULL,
    name_key      TEXT NOT NULL,                -- case-folded, for the search
    roles         TEXT NOT NULL CHECK (roles IN ('user', 'admin', 'admin,user')),
    active        INTEGER NOT NULL CHECK (active IN (0, 1)),
    version       INTEGER NOT NULL,
    token_version INTEGER NOT NULL,             -- the `ver` of access tokens
    password_hash TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX users_active_admins ON users (active, roles) WHERE roles <> 'user';

CREATE TABLE sessions (
    id            TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (id),
    token_version INTEGER NOT NULL,             -- the lowest `ver` this login still accepts
    user_agent    TEXT NOT NULL,
    ip            TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,             -- of its newest refresh token
    ended_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_live ON sessions (user_id, id) WHERE ended_at IS NULL;

-- One family a session. Only the hash of a token is stored; nonce, issued_at, expires_at and key_id are what the
-- deterministic successor is recomputed from.
CREATE TABLE refresh_tokens (
    token_hash    BLOB PRIMARY KEY,
    session_id    TEXT NOT NULL REFERENCES sessions (id),
    issued_at     INTEGER NOT NULL,             -- seconds, as in the token
    expires_at    INTEGER NOT NULL,             -- seconds, as in the token
    key_id        TEXT NOT NULL,
    used_at       INTEGER,
    nonce         BLOB,
    successor     BLOB REFERENCES refresh_tokens (token_hash) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);

CREATE TABLE password_resets (
    id            TEXT PRIMARY KEY,             -- the token is this id and its HMAC: nothing usable is stored
    user_id       TEXT NOT NULL REFERENCES users (id),
    created_at    INTEGER NOT NULL,
    ended_at      INTEGER                       -- used, or voided by a newer request
) STRICT, WITHOUT ROWID;
CREATE INDEX password_resets_open ON password_resets (user_id) WHERE ended_at IS NULL;
