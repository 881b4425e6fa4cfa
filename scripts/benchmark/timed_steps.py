"""How a process of the benchmark takes turns; plain Python, for the environments of all peers."""

import ast
import json
import sys
import time


def serve(steps_of):
    """Runs steps of the iterator `steps_of(kind, what, settings)` on demand."""
    kind, what, settings = sys.argv[1:]
    steps = steps_of(kind, what, ast.literal_eval(settings))
    for _ in wanted_steps():
        next(steps)


def wanted_steps():
    """Yields before each step that is wanted: a number on stdin is a turn of so many.

    Its answer on stdout is a line of JSON with the `milliseconds` of each step, from one yield to
    the next, the `cpu_seconds` of the turn, and this process's `peak_megabytes` so far.
    """
    for line in sys.stdin:
        milliseconds, cpu = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            yield
            milliseconds.append(1e3 * (time.perf_counter() - start))
        turn = {'milliseconds': milliseconds, 'cpu_seconds': time.process_time() - cpu}
        print(json.dumps(dict(turn, peak_megabytes=peak_megabytes())), flush=True)


def peak_megabytes(pid='self'):
    """The most memory that a process has held so far."""
    # Not ru_maxrss: Linux lets a process inherit that of its parent.
    with open('/proc/{}/status'.format(pid)) as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith('VmHWM:'))
