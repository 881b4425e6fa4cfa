"""How a contestant of benchmark.py takes turns; plain Python, for the environments of all peers."""

import json
import resource
import sys
import time


def serve_steps(step):
    """Answers each number on stdin with the milliseconds of that many steps, as JSON."""
    for line in sys.stdin:
        milliseconds = []
        cpu = time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            milliseconds.append(1e3 * (time.perf_counter() - start))
        answer = {
            'milliseconds': milliseconds,
            'cpu_seconds': time.process_time() - cpu,
            'peak_megabytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(answer), flush=True)
