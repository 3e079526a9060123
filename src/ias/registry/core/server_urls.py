"""Where an engine's own operations are: beside the version path under which it serves."""

import re

_VERSION_PATH = re.compile(r"/v\d+$")


def server_of(url: str) -> str:
    """The root of the server that a backend's URL (`http://host:8000/v1`) is on."""
    return _VERSION_PATH.sub("", url)
