"""A log line is JSON, says which process and request it is of, and holds no secret."""

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog, sys
from ias.kit.logging import configure_logging
from ias.kit.settings import ProcessSettings
told = {"secret_key": "A" * 43 + "=", "redis_url": "redis://127.0.0.1:1/0", "log_format": sys.argv[1]}
configure_logging("probe", ProcessSettings(**told))
log = structlog.get_logger("ias.test")
with structlog.contextvars.bound_contextvars(request_id="req_1"):
    log.info("said", size=3, password="hunter2", api_key="hunter2", token="hunter2", authorization="hunter2")
    logging.getLogger("library").warning("from %s", "a library")
    log.debug("not said")
    secret_in_a_local = "hunter" + "2"
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("failed")
"""


def run(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, log_format], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert "hunter2" not in done.stderr
    return done.stderr.splitlines()


def test_lines_are_json_with_process_and_request_and_without_secrets() -> None:
    said, library, failed = map(json.loads, run("json"))
    for line in (said, library, failed):
        assert (line["process"], line["request_id"]) == ("probe", "req_1")
        assert line["timestamp"].endswith("Z")
    assert (said["event"], said["level"], said["logger"], said["size"]) == ("said", "info", "ias.test", 3)
    assert (library["event"], library["level"]) == ("from a library", "warning")
    assert "RuntimeError: boom" in failed["exception"]


def test_on_a_terminal_a_traceback_shows_no_local_variables() -> None:
    text = "\n".join(run("console"))
    assert "RuntimeError: boom" in text
    assert "secret_in_a_local" not in text.replace('secret_in_a_local = "hunter" + "2"', "")
