"""The rules, one file per noun. Nothing here knows a web framework."""
