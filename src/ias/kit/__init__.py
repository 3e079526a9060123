"""What every process needs and what carries no business noun.

settings, logging, telemetry · problems (RFC 9457), web (the management app), authorization, tokens · database, migrations,
cursors · bus (with its two adapters), redis_documents · sealing.
"""
