"""Real PostgreSQL, Redis and RabbitMQ for the tests: found, installed or started here, stopped when the run ends."""
