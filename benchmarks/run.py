"""Measure the gateway against nginx, side by side, and print a Markdown table (see README.md).

python benchmarks/run.py [--seconds 5] [--rounds 3] [--connections 32]
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

    cpu_us: float
    redis_cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    errors: int


def process_tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in processes)


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
    before, redis_before = cpu_s(processes), cpu_s(redis_process)
    report = load(target, key=stack.key, stream=stream, connections=connections, seconds=seconds)
    used, redis_used = cpu_s(processes) - before, cpu_s(redis_process) - redis_before
    served = int(re.search(r"(\d+) requests in", report)[1])  # type: ignore[index]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    broken = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", report))
    return Figure(
        cpu_us=used / served * 1e6,
        redis_cpu_us=redis_used / served * 1e6,
        rate=float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1]),  # type: ignore[index]
        p50_ms=to_ms(re.search(r"\s50%\s+(\S+)", report)[1]),  # type: ignore[index]
        p99_ms=to_ms(re.search(r"\s99%\s+(\S+)", report)[1]),  # type: ignore[index]
        rss_mb=sum(p.memory_info().rss for p in processes) / 1e6,
        errors=broken + (int(failed[1]) if failed else 0),
    )


def median(figures: list[Figure], name: str) -> float:
    return statistics.median(getattr(figure, name) for figure in figures)


def compare(stack: Stack, *, work: str, stream: bool, connections: int, seconds: int, rounds: int) -> list[str]:
    """Table rows of one kind of load: both servers in turns, medians of the rounds."""
    targets = (stack.nginx, stack.gateway)
    results: dict[str, list[Figure]] = {target.name: [] for target in targets}
    for target in targets:
        load(target, key=stack.key, stream=stream, connections=connections, seconds=1)  # warm up
    for _ in range(rounds):
        for target in targets:
            figure = measure(target, stack, stream=stream, connections=connections, seconds=seconds)
            results[target.name].append(figure)
    floor = median(results[stack.nginx.name], "cpu_us")
    rows = []
    for name, figures in results.items():
        cpu = median(figures, "cpu_us")
        redis_cpu = f"{median(figures, 'redis_cpu_us'):.0f} µs" if name == stack.gateway.name else "-"
        rows.append(
            f"| {work} | {connections} | {name} | {cpu:.1f} µs | {cpu / floor:.2f} x | {redis_cpu} "
            f"| {median(figures, 'rate'):,.0f}/s | {median(figures, 'p50_ms'):.2f} ms "
            f"| {median(figures, 'p99_ms'):.2f} ms | {median(figures, 'rss_mb'):.0f} MB "
            f"| {sum(figure.errors for figure in figures)} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each server; medians are printed")
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    require_programs()
    print("| work | connections | server | CPU/request | ratio | Redis' CPU | requests | p50 | p99 | RSS | errors |")
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
