-- Conventions of all tables: ids are UUIDv7 texts, so they sort by time; times are milliseconds since 1970-01-01 UTC.
CREATE TABLE users (
    id            text COLLATE "C" PRIMARY KEY,
    email         text COLLATE "C" NOT NULL,                -- as typed
    email_key     text COLLATE "C" NOT NULL UNIQUE,         -- case-folded: two addresses with the same key are one mailbox
    name          text COLLATE "C" NOT NULL,
    name_key      text COLLATE "C" NOT NULL,                -- case-folded, for the search
    roles         text COLLATE "C" NOT NULL CHECK (roles IN ('user', 'admin', 'admin,user')),
    active        smallint NOT NULL CHECK (active IN (0, 1)),
    version       bigint NOT NULL,
    token_version bigint NOT NULL,             -- the `ver` of new access tokens
    password_hash text COLLATE "C" NOT NULL,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL
);

-- Answers whether an admin is the last active one. It holds no plain users.
CREATE INDEX users_active_admins ON users (active, id) WHERE roles <> 'user';

-- A login.
CREATE TABLE sessions (
    id            text COLLATE "C" PRIMARY KEY,
    user_id       text COLLATE "C" NOT NULL REFERENCES users (id),
    token_version bigint NOT NULL,             -- the lowest `ver` that this login accepts
    user_agent    text COLLATE "C" NOT NULL,
    ip            text COLLATE "C" NOT NULL,
    network       text COLLATE "C" NOT NULL,                -- the client as rate limits see it: an IPv4 address or an IPv6 /64
    created_at    bigint NOT NULL,
    last_used_at  bigint NOT NULL,
    expires_at    bigint NOT NULL,             -- of its newest refresh token
    ended_at      bigint                       -- NULL: live until it expires
);

-- A user's live logins are one range, however many have expired.
CREATE INDEX sessions_live ON sessions (user_id, expires_at) WHERE ended_at IS NULL;

-- Answers whether a user has logged in from a client before.
CREATE INDEX sessions_by_network ON sessions (user_id, network, created_at);

-- What is still to be erased after a user was deleted: the sessions that tell where the user was.
CREATE INDEX sessions_with_origin ON sessions (user_id) WHERE user_agent <> '' OR ip <> '';

-- The refresh tokens of a session are its family. Only hashes are stored; a successor can be computed again from the
-- old token and `nonce` here, and from `issued_at`, `expires_at` and `key_id` in the successor's row.
CREATE TABLE refresh_tokens (
    token_hash    bytea PRIMARY KEY,
    session_id    text COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at     bigint NOT NULL,             -- seconds, as in the token
    expires_at    bigint NOT NULL,             -- seconds, as in the token
    key_id        text COLLATE "C" NOT NULL,
    used_at       bigint,                      -- this and the next two are set by the rotation
    nonce         bytea,
    successor     bytea REFERENCES refresh_tokens (token_hash) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED
);

-- For the foreign keys: without these, deleting a session or a token would read every token.
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_successor ON refresh_tokens (successor) WHERE successor IS NOT NULL;

-- Finds the expired tokens.
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- Password resets that were requested for a user.
CREATE TABLE password_resets (
    id            text COLLATE "C" PRIMARY KEY,             -- the token is this id and its HMAC, and is not stored
    user_id       text COLLATE "C" NOT NULL REFERENCES users (id),
    created_at    bigint NOT NULL,
    ended_at      bigint                       -- used, or void
);

-- A user's open reset; there is at most one.
CREATE INDEX password_resets_open ON password_resets (user_id) WHERE ended_at IS NULL;

-- Addresses for which a reset was requested, of a user or not. A row is deleted as soon as its address is looked up.
CREATE TABLE reset_requests (
    id            text COLLATE "C" PRIMARY KEY,
    email         text COLLATE "C" NOT NULL,
    created_at    bigint NOT NULL
);
