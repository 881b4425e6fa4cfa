"""How many random examples a property test has, and how they are chosen."""

import math
import os

import hypothesis

# The fast tests try a third of the examples that once found the faults; FUZZ_SHARE=1 tries all.
_SHARE = float(os.environ.get('FUZZ_SHARE', '0.33'))


def examples(count):
    """Always the same examples, a share of `count`, each within 20 seconds; none is kept."""
    return hypothesis.settings(
        max_examples=math.ceil(_SHARE * count),
        derandomize=True,
        database=None,
        deadline=120000,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
