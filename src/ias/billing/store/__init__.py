"""Tables and queries, one file per noun, and the counters in Redis. Every query runs in the caller's transaction."""
