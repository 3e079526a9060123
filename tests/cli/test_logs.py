"""`ias logs`: the last lines of one process, or of all with their names."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ias.cli.logs import logs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gateway.log").write_text("".join(f"line {number}\n" for number in range(100_000)))
    (tmp_path / "logs" / "redis.log").write_text("ready\nhalf a li")
    return tmp_path


def test_the_last_lines_of_one_process(data: Path):
    ran = CliRunner().invoke(logs, ["gateway", "-n", "2", "--data-dir", str(data)])
    assert ran.output == "line 99998\nline 99999\n"


def test_all_processes_with_their_names_and_only_whole_lines(data: Path):
    ran = CliRunner().invoke(logs, ["-n", "1", "--data-dir", str(data)])
    assert ran.output == "gateway    | line 99999\nredis      | ready\n"


def test_an_unknown_process_is_answered_with_those_there_are(data: Path):
    ran = CliRunner().invoke(logs, ["postgres", "--data-dir", str(data)])
    assert ran.exit_code == 1
    assert "there is no log of postgres; there are: gateway, redis" in ran.output


def test_following_shows_new_lines_as_they_come(data: Path):
    log = data / "logs" / "redis.log"
    # Under a shell in the background Ctrl-C is ignored, by its children too, unless they are told otherwise.
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-m",
        "ias",
        "logs",
        "redis",
        "-f",
        "--data-dir",
        str(data),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
        time.sleep(0.01)
        with log.open("a") as file:
            file.write("ne\nand one more\n")
        assert follower.stdout.readline() == "half a line\n"
        assert follower.stdout.readline() == "and one more\n"
        follower.send_signal(2)
        assert follower.wait(30) == 130
