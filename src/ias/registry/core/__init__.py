"""The registry's rules, one file per noun. Knows no web framework."""
