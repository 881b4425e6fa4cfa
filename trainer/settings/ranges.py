"""The values that numbers among the settings may take."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a number may take: `low` to `high`, both included unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and (
            value <= self.high and not math.isinf(value)
        )

    def __str__(self) -> str:
        if math.isinf(self.high):
            return '{} {:g}'.format('above' if self.open_low else 'at least', self.low)
        start = 'above {:g} and at most' if self.open_low else 'from {:g} to'
        return '{} {:,}'.format(start.format(self.low), self.high)


COUNT, STEPS, SIZE = Range(1, 10**9), Range(0, 10**9), Range(1, 8192)
# Within these, Adam's step along finite gradients leaves finite weights and moments in single
# precision, which ends at 3e38: the second moment is at most the square of the norm, and a step at
# most some 10 learning rates.
STEP_SIZE = Range(0, 10**9, open_low=True)
GRADIENT_NORM = Range(0, 10**18, open_low=True)
