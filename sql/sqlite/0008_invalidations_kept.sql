-- The log of invalidations keeps its last 10,000 entries and up to a thousand more; whoever has missed some forgets all.
CREATE TRIGGER cache_invalidations_pruned AFTER INSERT ON cache_invalidations WHEN NEW.seq % 1000 = 0 BEGIN
    DELETE FROM cache_invalidations WHERE seq <= NEW.seq - 10000;
END;
