"""One platform per data directory, whatever an earlier one left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ias.local.lock import AlreadyRunningError, Holder, find_holder, hold_lock, is_same_process

HOLD = """
import sys, time
from pathlib import Path
from ias.local.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_platform_on_the_same_data_is_refused_in_one_line_that_names_the_first(tmp_path: Path):
    with hold_lock(tmp_path / "lock"):
        with pytest.raises(AlreadyRunningError) as caught, hold_lock(tmp_path / "lock"):
            pass
        assert f"process {os.getpid()}" in str(caught.value)
        assert "ias down" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_lock_is_free_again_when_the_platform_ended(tmp_path: Path):
    with hold_lock(tmp_path / "lock"):
        pass
    assert find_holder(tmp_path / "lock") is None
    with hold_lock(tmp_path / "lock"):
        assert find_holder(tmp_path / "lock") is not None


def test_the_lock_of_a_killed_platform_keeps_nobody_out(tmp_path: Path):
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunningError), hold_lock(lock):
            pass
        holder.kill()
    assert find_holder(lock) is None
    with hold_lock(lock):
        assert find_holder(lock) == Holder(os.getpid(), psutil.Process().create_time())


def test_a_process_that_merely_got_the_same_id_does_not_hold_the_lock(tmp_path: Path):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "started_at": 1.0}))
    assert find_holder(lock) is None


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", '{"pid": "x"}'])
def test_a_lock_file_with_anything_in_it_is_no_obstacle(tmp_path: Path, content: str):
    lock = tmp_path / "lock"
    lock.write_text(content)
    assert find_holder(lock) is None
    with hold_lock(lock):
        pass


def test_a_process_that_never_was_is_not_alive():
    assert not is_same_process(Holder(pid=2**22 + 1, started_at=0.0))
