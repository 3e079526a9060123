"""Tests of the identity service, against a real PostgreSQL and a real Redis."""
