-- A user's actions of one kind: each of the other two indexes finds them only by reading all of the user's, or all of
-- that kind.
CREATE INDEX audit_of_user_by_action ON audit (user_id, action, id);

-- A user's live logins are one range of this index, however many have expired.
DROP INDEX sessions_live;
CREATE INDEX sessions_live ON sessions (user_id, expires_at) WHERE ended_at IS NULL;

-- A user has at most 100 live logins from now on; the oldest of those that have more end here.
UPDATE sessions SET ended_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000 WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id DESC) AS nth FROM sessions
        WHERE ended_at IS NULL AND expires_at > CAST(strftime('%s', 'now') AS INTEGER) * 1000
    ) WHERE nth > 100
);

-- The log of invalidations loses at most 2,000 entries at a time: one that has grown long is no writer's burden.
DROP TRIGGER cache_invalidations_pruned;
CREATE TRIGGER cache_invalidations_pruned AFTER INSERT ON cache_invalidations WHEN NEW.seq % 1000 = 0 BEGIN
    DELETE FROM cache_invalidations
    WHERE seq <= NEW.seq - 10000 AND seq < (SELECT min(seq) FROM cache_invalidations) + 2000;
END;
