"""What every process needs and what carries no business noun.

settings, logging, telemetry · problems (RFC 9457), web (the management app), access and authorization, tokens, etags ·
database, migrations, partitions, cursors, moments · bus (with its two adapters), redis_connection, redis_documents ·
sealing, pauses.
"""
