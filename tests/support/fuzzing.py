"""How many random examples a property test has, and how they are chosen."""

import hypothesis


def examples(count):
    """Always the same `count` examples, each within 20 seconds; nothing is kept on disk."""
    return hypothesis.settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=120000,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
