"""Tasks as files: for another server, another store, another checkpoint."""
