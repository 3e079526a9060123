"""Identity: orgs, projects, users, API keys, sessions, audit. Start reading at `README.md`."""
