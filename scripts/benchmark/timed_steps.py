"""How a process of the benchmark takes turns; plain Python, for the environments of all peers."""

import json
import sys
import time


def turns():
    """Yields once before each step that is wanted; ends when no more are.

    Each number on stdin is a turn of so many steps. Its answer is a line of JSON on stdout with the
    `milliseconds` of each step, from one yield to the next, the `cpu_seconds` of the turn, and the
    `peak_megabytes` of this process so far.
    """
    for line in sys.stdin:
        milliseconds = []
        cpu = time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            yield
            milliseconds.append(1e3 * (time.perf_counter() - start))
        answer = {
            'milliseconds': milliseconds,
            'cpu_seconds': time.process_time() - cpu,
            'peak_megabytes': peak_megabytes(),
        }
        print(json.dumps(answer), flush=True)


def serve_steps(step):
    """Calls `step` as often as `turns` wants."""
    for _ in turns():
        step()


def peak_megabytes(pid='self'):
    """The most memory that a process has held so far."""
    # Not ru_maxrss: Linux lets a process inherit that of its parent.
    with open('/proc/{}/status'.format(pid)) as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith('VmHWM:'))
