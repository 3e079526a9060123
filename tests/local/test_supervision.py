"""Processes are kept alive within bounds, stopped in order, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ias.local import supervisor as supervision
from ias.local.privileges import bind_to_parent
from ias.local.process import PlatformProcess, ProcessFailedError, ProcessSpec
from ias.local.supervisor import Supervisor


async def yes() -> bool:
    return True


def spec(tmp_path: Path, name: str, script: str, **more) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        arguments=["/bin/sh", "-c", script],
        environment={"PATH": os.environ["PATH"]},
        log_file=tmp_path / f"{name}.log",
        **{"probe": yes, **more},
    )


def writes(tmp_path: Path, name: str) -> str:
    """A process that notes when it is asked to stop."""
    return f"trap 'echo {name} >> {tmp_path}/stopped; exit 0' TERM; touch {tmp_path}/{name}.up; while :; do sleep 0.02; done"


def up(tmp_path: Path, name: str):
    async def probe() -> bool:
        return (tmp_path / f"{name}.up").exists()

    return probe


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervision, "_FIRST_PAUSE_S", 0.01)


async def test_everything_is_stopped_last_first(tmp_path: Path):
    lines: list[str] = []
    supervisor = Supervisor(lines.append, lambda: None)
    for name in ("one", "two", "three"):
        await supervisor.start(supervisor.add(spec(tmp_path, name, writes(tmp_path, name), probe=up(tmp_path, name))))
    pids = supervisor.pids()
    await supervisor.stop()
    assert (tmp_path / "stopped").read_text().split() == ["three", "two", "one"]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert lines == ["stopping three", "stopping two", "stopping one"]


async def test_a_process_that_dies_is_started_again(tmp_path: Path, quick):
    supervisor = Supervisor(lambda _: None, lambda: None)
    process = supervisor.add(spec(tmp_path, "worker", "sleep 60"))
    await supervisor.start(process)
    first = process.pid
    os.kill(first, signal.SIGKILL)
    while process.restarts == 0 or not process.ready:
        await asyncio.sleep(0.01)
    assert process.pid not in (None, first)
    await supervisor.stop()


async def test_what_a_killed_process_had_started_is_gone_before_it_is_started_again(tmp_path: Path, quick):
    supervisor = Supervisor(lambda _: None, lambda: None)
    script = f"sleep 300 & echo $! >> {tmp_path}/children; touch {tmp_path}/parent.up; wait"
    process = supervisor.add(spec(tmp_path, "parent", script, probe=up(tmp_path, "parent")))
    await supervisor.start(process)
    child = psutil.Process(int((tmp_path / "children").read_text()))
    os.kill(process.pid, signal.SIGKILL)
    while process.restarts == 0 or not process.ready:
        await asyncio.sleep(0.01)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    await supervisor.stop()


async def test_a_process_that_keeps_dying_ends_the_platform_with_its_last_words(tmp_path: Path, quick):
    supervisor = Supervisor(lambda _: None, lambda: None)
    process = supervisor.add(spec(tmp_path, "worker", "echo 'no such table'; sleep 0.1; exit 3"))
    await supervisor.start(process)
    failure = await supervisor.wait_failed()
    assert "worker ended with status 3, 6 times" in str(failure)
    assert "no such table" in str(failure)
    await supervisor.stop()


async def test_a_process_that_ends_while_it_starts_is_said_at_once_with_its_last_words(tmp_path: Path):
    async def never() -> bool:
        return False

    process = PlatformProcess(spec(tmp_path, "engine", "echo 'cannot open model'; exit 7", probe=never))
    await process.start()
    with pytest.raises(ProcessFailedError, match=r"engine ended with status 7 while starting(.|\n)*cannot open model"):
        await process.wait_ready()


async def test_a_process_that_never_becomes_ready_has_a_deadline(tmp_path: Path):
    async def never() -> bool:
        return False

    process = PlatformProcess(spec(tmp_path, "engine", "sleep 60", probe=never, ready_timeout_s=0.2))
    await process.start()
    with pytest.raises(ProcessFailedError, match="engine was not ready within"):
        await process.wait_ready()
    await process.stop()


async def test_a_process_that_does_not_stop_is_killed_with_everything_it_started(tmp_path: Path):
    stubborn = (
        f"trap '' TERM; sleep 300 & echo $! > {tmp_path}/child; touch {tmp_path}/stubborn.up; while :; do sleep 1; done"
    )
    process = PlatformProcess(spec(tmp_path, "stubborn", stubborn, probe=up(tmp_path, "stubborn"), stop_timeout_s=0.1))
    await process.start()
    await process.wait_ready()
    child = psutil.Process(int((tmp_path / "child").read_text()))
    await process.stop()
    assert process.pid is None
    await asyncio.to_thread(psutil.wait_procs, [child], 10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_killed_supervisor_takes_its_processes_with_it(tmp_path: Path):
    command = bind_to_parent(["sleep", "300"], "SIGTERM")
    script = f"import subprocess, time; p = subprocess.Popen({command!r}); print(p.pid, flush=True); time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        while psutil.Process(pid).name() != "sleep":
            time.sleep(0.01)
        orphan = psutil.Process(pid)
        supervisor.kill()
    _, alive = psutil.wait_procs([orphan], timeout=10)
    assert not alive or alive[0].status() == psutil.STATUS_ZOMBIE
