"""Tables and queries, one file per noun. Every function works inside the caller's transaction."""
