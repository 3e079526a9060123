"""`ias up`: the whole platform on one machine.

Start reading at `up.py` (what is started, in which order). `supervisor.py` keeps the processes alive and stops them,
`postgres.py` and `redis.py` run the embedded servers that `servers.py` finds, `bootstrap.py` makes the first org, project,
key, model, price and budget through the management API, `management.py` serves all management apps from one process.
"""
