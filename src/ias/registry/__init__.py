"""Registry: which models there are, which backends serve them, and the route table that tells every gateway."""
