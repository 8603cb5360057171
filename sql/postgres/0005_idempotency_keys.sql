-- The first answer to each request that had an Idempotency-Key.
CREATE TABLE idempotency_keys (
    user_id     text COLLATE "C" NOT NULL REFERENCES users (id),
    key         bytea NOT NULL,                  -- SHA-256 of user and key: a client may have put a secret into it
    fingerprint bytea NOT NULL,                  -- of method, path and body
    data        text COLLATE "C" NOT NULL,                  -- the answer's `data`, replayed byte for byte
    created_at  bigint NOT NULL,
    PRIMARY KEY (user_id, key)
);

-- Finds the expired keys.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
