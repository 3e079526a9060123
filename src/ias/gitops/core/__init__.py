"""The rules of desired state, one file per noun. Knows no web framework."""
