"""Rules, one file per noun. Nothing here knows a web framework."""
