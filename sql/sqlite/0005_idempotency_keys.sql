-- The first answer to each request that had an Idempotency-Key.
CREATE TABLE idempotency_keys (
    user_id     TEXT NOT NULL REFERENCES users (id),
    key         BLOB NOT NULL,                  -- SHA-256 of user and key: a client may have put a secret into it
    fingerprint BLOB NOT NULL,                  -- of method, path and body
    data        TEXT NOT NULL,                  -- the answer's `data`, replayed byte for byte
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;

-- Finds the expired keys.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
