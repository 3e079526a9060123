"""Run one worker under cProfile, put load on it, print where the time went.

    python benchmarks/profile_worker.py [--stream] [--seconds 5] [--sort tottime]

The profiler multiplies the cost of calls: use it to find what to look at, and run.py to see whether it helped.
"""

import argparse
import pstats
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_stack import run_stack
from benchmarks.run import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--sort", default="tottime")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "worker.prof"
        command = [sys.executable, "-m", "cProfile", "-o", str(result), "-m", "ias.gateway.worker"]
        with run_stack(Path(directory), gateway=command) as stack:
            print(
                load(stack.gateway, key=stack.key, stream=arguments.stream, connections=32, seconds=arguments.seconds)
            )
        pstats.Stats(str(result)).sort_stats(arguments.sort).print_stats(45)


if __name__ == "__main__":
    main()
