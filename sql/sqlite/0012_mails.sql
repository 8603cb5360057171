-- A mail that an event is followed by, and the address that the user had then. It stands here and not in the event, which
-- webhooks get too; it goes with the event, after a week, or with the user. The mailer reads it, and an hour's are counted.
CREATE TABLE mails (
    event_id   TEXT PRIMARY KEY REFERENCES outbox (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL REFERENCES users (id),
    kind       TEXT NOT NULL,                   -- the event's name
    email      TEXT NOT NULL,
    email_key  TEXT NOT NULL,                   -- as in `users`: the mailbox
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mails_to_mailbox ON mails (email_key, kind, created_at);
CREATE INDEX mails_of_user ON mails (user_id);

INSERT INTO mails
    SELECT outbox.id, users.id, outbox.name, users.email, users.email_key, outbox.created_at
    FROM deliveries JOIN outbox USING (seq) JOIN users ON users.id = outbox.resource_id
    WHERE subscriber = 'mailer' AND due_at IS NOT NULL;

-- Who asks for a new password: any address, of a user or not. A row goes as soon as that has been looked up.
CREATE TABLE reset_requests (
    id    TEXT PRIMARY KEY,
    email TEXT NOT NULL
) STRICT, WITHOUT ROWID;
