"""The built-in engine: a vLLM-shaped replica that needs no GPU, for development, tests and routing experiments.

It is honest about everything a gateway can see (usage counts, streaming pace, prefix caching, metrics, error shapes, aborts
on disconnect) and makes up only the text, deterministically from a seed. It owns no data and knows no tenant.

Read `server.py` first (what is served), then `replica.py` (how a request runs), `generation.py` (the text and its end).
"""
