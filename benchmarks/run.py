"""Measure the gateway against nginx, side by side, and print a Markdown table (see README.md).

python benchmarks/run.py [--seconds 3] [--rounds 5] [--connections 32] [--backends 16] [--peers]
"""

import argparse
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_stack import HERE, MODEL, Stack, Target, find_build, require_programs, run_stack
from benchmarks.peers import run_peers


@dataclass(frozen=True)
class Figure:
    """One run's result. Times in microseconds unless named otherwise."""

    user_us: float
    system_us: float
    redis_cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    errors: int

    @property
    def cpu_us(self) -> float:
        """User and system time of one request."""
        return self.user_us + self.system_us


def process_tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(processes: list[psutil.Process]) -> tuple[float, float]:
    """User and system time so far."""
    times = [p.cpu_times() for p in processes]
    return sum(t.user for t in times), sum(t.system for t in times)


def load(target: Target, *, key: str, stream: bool, connections: int, seconds: int) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    command += [part for name, value in target.headers.items() for part in ("-H", f"{name}: {value}")]
    command += ["-s", str(HERE / "chat.lua"), target.url]
    environment = {**os.environ, "KEY": key, "MODEL": MODEL, "STREAM": "1" if stream else "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def to_ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def measure(target: Target, stack: Stack, *, stream: bool, connections: int, seconds: int) -> Figure:
    processes = process_tree(target.pid)
    redis_process = [psutil.Process(stack.redis_pid)]
    (user, system), redis_before = cpu_s(processes), sum(cpu_s(redis_process))
    report = load(target, key=stack.key, stream=stream, connections=connections, seconds=seconds)
    (user_after, system_after), redis_after = cpu_s(processes), sum(cpu_s(redis_process))
    served = int(re.search(r"(\d+) requests in", report)[1]) or math.nan  # type: ignore[index]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    broken = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", report))
    return Figure(
        user_us=(user_after - user) / served * 1e6,
        system_us=(system_after - system) / served * 1e6,
        redis_cpu_us=(redis_after - redis_before) / served * 1e6,
        rate=float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1]),  # type: ignore[index]
        p50_ms=to_ms(re.search(r"\s50%\s+(\S+)", report)[1]),  # type: ignore[index]
        p99_ms=to_ms(re.search(r"\s99%\s+(\S+)", report)[1]),  # type: ignore[index]
        rss_mb=sum(p.memory_info().rss for p in processes) / 1e6,
        errors=broken + (int(failed[1]) if failed else 0),
    )


def median(figures: list[Figure], name: str) -> float:
    return statistics.median(getattr(figure, name) for figure in figures)


def cheapest(figures: list[Figure]) -> Figure:
    """The round that was disturbed least: a neighbour on the machine only ever adds to what a request costs."""
    return min(figures, key=lambda figure: figure.cpu_us)


def compare(
    stack: Stack,
    targets: tuple[Target, ...],
    *,
    work: str,
    stream: bool,
    connections: int,
    seconds: int,
    rounds: int,
) -> list[str]:
    """Table rows of one kind of load: the servers in turns; the cheapest round's CPU, medians of the rest."""
    results: dict[str, list[Figure]] = {target.name: [] for target in targets}
    for target in targets:
        warm_up_s = max(1, target.seconds_min // 2)
        load(target, key=stack.key, stream=stream, connections=connections, seconds=warm_up_s)
    for _ in range(rounds):
        for target in targets:
            lasts_s = max(seconds, target.seconds_min)
            figure = measure(target, stack, stream=stream, connections=connections, seconds=lasts_s)
            results[target.name].append(figure)
    floor = cheapest(results[stack.nginx.name]).cpu_us
    rows = []
    for name, figures in results.items():
        best = cheapest(figures)
        redis_cpu = f"{median(figures, 'redis_cpu_us'):.0f} µs" if name == stack.gateway.name else "-"
        rows.append(
            f"| {work} | {connections} | {name} | {best.cpu_us:.1f} µs "
            f"({best.user_us:.0f} + {best.system_us:.0f}) | {best.cpu_us / floor:.2f} x | {redis_cpu} "
            f"| {median(figures, 'rate'):,.0f}/s | {median(figures, 'p50_ms'):.2f} ms "
            f"| {median(figures, 'p99_ms'):.2f} ms | {median(figures, 'rss_mb'):.0f} MB "
            f"| {sum(figure.errors for figure in figures)} |"
        )
    return rows


def describe_machine() -> str:
    """What the figures depend on beside the code."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") or sys.base_prefix == "/usr":
        build = "an optimised build"  # distributions' own are, without saying so
    else:
        build = "NOT built with --enable-optimizations: the gateway's figures are about a fifth too high"
    code = "pure Python" if find_build() is None else "hot modules compiled by mypyc"
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
    return (
        f"{platform.python_implementation()} {platform.python_version()} ({build}; {platform.python_compiler()}), {code}; "
        f"{nginx.removeprefix('nginx version: ')}; {os.cpu_count()} cores; Linux {platform.release()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each server, in turns")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument(
        "--backends", type=int, default=1, help="of the model: with more than one, routing has a choice"
    )
    parser.add_argument("--peers", action="store_true", help="measure other gateways too, installed on first use")
    arguments = parser.parse_args()
    require_programs()
    print(f"{describe_machine()}\n")
    print(
        "| work | connections | server | CPU/request (user + system) | ratio "
        "| Redis' CPU | requests | p50 | p99 | RSS | errors |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory()))
        stack = running.enter_context(run_stack(directory, backends=arguments.backends))
        targets: tuple[Target, ...] = (stack.nginx, stack.gateway)
        if arguments.peers:
            targets += running.enter_context(run_peers(directory, stack.upstream_port, stack.key))
        for work, stream, connections in (
            ("unstreamed, 1.3 kB", False, arguments.connections),
            ("stream of 65 events", True, arguments.connections),
            ("unstreamed, 1.3 kB", False, 1),
        ):
            rows = compare(
                stack,
                targets,
                work=work,
                stream=stream,
                connections=connections,
                seconds=arguments.seconds,
                rounds=arguments.rounds,
            )
            print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
