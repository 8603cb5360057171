-- Events, written in the transaction that they describe and delivered after its commit.
CREATE TABLE outbox (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- rises in the order of commits
    id            text COLLATE "C" NOT NULL UNIQUE,
    name          text COLLATE "C" NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    resource_id   text COLLATE "C" NOT NULL,                -- with its type: the aggregate, within which order is kept
    user_id       text COLLATE "C",                         -- the actor
    request_id    text COLLATE "C" NOT NULL,
    payload       text COLLATE "C" NOT NULL,
    created_at    bigint NOT NULL
);

-- What is owed to each subscriber. A row is deleted once its event has been delivered.
CREATE TABLE deliveries (
    seq        bigint NOT NULL REFERENCES outbox (seq) ON DELETE CASCADE,
    subscriber text COLLATE "C" NOT NULL,
    tries      bigint NOT NULL,
    due_at     bigint,                         -- 0: at once; -1: after an older event; NULL: never, a dead letter
    aggregate  text COLLATE "C",                            -- resource type and id; NULL where order does not matter
    PRIMARY KEY (seq, subscriber)
);

-- Finds what is due, at a cost that does not depend on what waits.
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at, seq) WHERE due_at IS NOT NULL;

-- Finds what waits behind an event of the same aggregate.
CREATE INDEX deliveries_waiting ON deliveries (subscriber, aggregate, seq) WHERE aggregate IS NOT NULL;

-- Counts dead letters.
CREATE INDEX deliveries_dead ON deliveries (due_at) WHERE due_at IS NULL;
