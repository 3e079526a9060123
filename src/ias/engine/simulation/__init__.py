"""Many replicas on a virtual clock, to compare ways of choosing between them. README.md says how; `cluster.py` is the clock."""
