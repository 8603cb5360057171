-- The mail that follows an event, and the address of the user at that time. It is not in the event, because webhooks
-- get events too. A row is deleted with its event or its user.
CREATE TABLE mails (
    event_id   text COLLATE "C" PRIMARY KEY REFERENCES outbox (id) ON DELETE CASCADE,
    user_id    text COLLATE "C" NOT NULL REFERENCES users (id),
    kind       text COLLATE "C" NOT NULL,                   -- the event's name
    email      text COLLATE "C" NOT NULL,
    email_key  text COLLATE "C" NOT NULL,                   -- case-folded, as in `users`
    created_at bigint NOT NULL
);

-- Counts the recent mails of a kind to a mailbox.
CREATE INDEX mails_to_mailbox ON mails (email_key, kind, created_at);

-- Finds what a deleted user leaves.
CREATE INDEX mails_of_user ON mails (user_id);
