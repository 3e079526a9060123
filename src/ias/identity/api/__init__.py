"""Routes and wire schemas, one file per noun. Nothing here decides anything: it translates between HTTP and `core`."""
