"""Routes and wire schemas, one file per noun."""
