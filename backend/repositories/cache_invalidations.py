"""The table `cache_invalidations`: the log of changed rows. Triggers write it, production's cache reads it."""

from backend.infrastructure.database import Tx


def prune(tx: Tx, keep: int, batch: int) -> int:
    """Delete all entries but the last `keep`: the oldest, and at most `batch`. Returns their number."""
    return tx.run(
        """DELETE FROM cache_invalidations WHERE seq IN
           (SELECT seq FROM cache_invalidations WHERE seq <= (SELECT max(seq) FROM cache_invalidations) - :keep
            ORDER BY seq LIMIT :batch)""",
        keep=keep,
        batch=batch,
    )
