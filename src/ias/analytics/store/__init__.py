"""Tables and queries, one file per noun. Every query runs in the caller's transaction."""
