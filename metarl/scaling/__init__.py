"""The shard: the unit of work that can be moved to another process."""
