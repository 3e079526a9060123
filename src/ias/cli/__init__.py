"""The `ias` command: a thin client, one file per command, each loaded only when it is asked for."""
