"""Measure the gateway against nginx, side by side, and print a Markdown table (see README.md).

python benchmarks/run.py [--seconds 3] [--rounds 5] [--connections 32]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_stack import HERE, MODEL, Stack, Target, require_programs, run_stack


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
    served = int(re.search(r"(\d+) requests in", report)[1])  # type: ignore[index]
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


def compare(stack: Stack, *, work: str, stream: bool, connections: int, seconds: int, rounds: int) -> list[str]:
    """Table rows of one kind of load: both servers in turns; the cheapest round's CPU, medians of the rest."""
    targets = (stack.nginx, stack.gateway)
    results: dict[str, list[Figure]] = {target.name: [] for target in targets}
    for target in targets:
        load(target, key=stack.key, stream=stream, connections=connections, seconds=1)  # warm up
    for _ in range(rounds):
        for target in targets:
            figure = measure(target, stack, stream=stream, connections=connections, seconds=seconds)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each server, in turns")
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    require_programs()
    print(
        "| work | connections | server | CPU/request (user + system) | ratio "
        "| Redis' CPU | requests | p50 | p99 | RSS | errors |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory, run_stack(Path(directory)) as stack:
        for work, stream, connections in (
            ("unstreamed, 1.3 kB", False, arguments.connections),
            ("stream of 65 events", True, arguments.connections),
            ("unstreamed, 1.3 kB", False, 1),
        ):
            rows = compare(
                stack,
                work=work,
                stream=stream,
                connections=connections,
                seconds=arguments.seconds,
                rounds=arguments.rounds,
            )
            print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
