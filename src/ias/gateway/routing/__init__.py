"""Which backend takes a request, and when: rules without I/O, told the time. The gateway and the simulator both run on them.

`model_router.py` is the whole of it for one model: candidates → group → strategy → place, and a queue for when nothing has room.
"""
