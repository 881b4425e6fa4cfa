"""The clock of the training steps, and what the user sees of them."""

import time
from typing import List, Optional

import tqdm

from trainer.base.console import SECONDS_BETWEEN_LINES, Pace, duration, progress_bar, say
from trainer.settings import wording
from trainer.settings.table import HParams


class TrainingProgress:
    """Shows step, negative ELBO, rate and time left; measures the time spent in steps.

    `hooks.ProgressHook` tells it what happens. A session may be lost with the steps since the last
    checkpoint, as where a parameter server dies, and be made anew: what was measured counts on.

    Attributes:
      first_step: global step before the first step, None if there was none.
      elapsed_seconds: from the start of the first step to the end of the last.
      step_seconds: the part of `elapsed_seconds` spent in training steps.
    """

    def __init__(self, params: HParams):
        self._params = params
        self._bar: Optional[tqdm.tqdm] = None
        self.first_step: Optional[int] = None
        self.elapsed_seconds = 0.0
        self.step_seconds = 0.0
        self._steps_done = 0
        self._rate_asked_at = (0, 0.0)  # Steps done, seconds spent in them.

    def session_began(self, global_step: int) -> None:
        """Starts to count from `global_step`."""
        self._step = global_step
        self._losses: List[float] = []
        self._shown_at = time.perf_counter()
        self._session_start = (self._step, self._shown_at, self.step_seconds)
        self._own_pace = Pace(self._steps_done, self.step_seconds)
        self._pace = Pace(self._step, self.step_seconds)
        if self._bar is None:
            self._bar = progress_bar('step', self._params.max_steps, self._step)

    def step_began(self) -> None:
        """Starts the clock of a step."""
        self._step_start = time.perf_counter()
        if self.first_step is None:
            self._start = self._step_start
            self.first_step = self._step

    def step_ended(self, negative_elbo: float, global_step: int) -> None:
        """Stops it, and shows how training goes if it is time to."""
        now = time.perf_counter()
        self.step_seconds += now - self._step_start
        self.elapsed_seconds = now - self._start
        # In a cluster others train too; here the step may be read before it is counted.
        self._step = max(self._step + 1, global_step)
        self._steps_done += 1
        self._losses = self._losses[-99:] + [negative_elbo]
        interval = 0.5 if self._bar is not None else SECONDS_BETWEEN_LINES
        if now - self._shown_at >= interval or self._step >= self._params.max_steps:
            self._shown_at = now
            self._show()

    def examples_per_second(self) -> Optional[float]:
        """Returns the rate in steps since the last summary, if a new one is due."""
        interval = self._params.save_summary_steps
        if not interval or self._steps_done % interval:
            return None
        steps, seconds = self._rate_asked_at
        self._rate_asked_at = (self._steps_done, self.step_seconds)
        examples = (self._steps_done - steps) * self._params.batch_size
        return examples / (self.step_seconds - seconds)

    @property
    def step(self) -> int:
        """The global step."""
        return self._step

    def close(self) -> None:
        """Leaves the bar as it is and goes on below it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self) -> None:
        loss = sum(self._losses) / len(self._losses)
        seconds = self._own_pace.seconds_each(self._steps_done, self.step_seconds)
        rate = self._params.batch_size / seconds
        text = f'negative ELBO {loss:.2f} nats, {rate:,.0f} examples/s, {self._left()} left'
        if self._bar is not None:
            self._bar.n = self._step
            self._bar.set_description_str(text)
            return
        convention = wording.data_convention(self._params)
        say(f'step {self._step:,}/{self._params.max_steps:,} ({convention}): {text}')

    def _left(self) -> str:
        """The time left: of steps as they took of late, and as much between them as so far."""
        first_step, start, step_seconds = self._session_start
        seconds = self._start + self.elapsed_seconds - start
        between = (seconds - (self.step_seconds - step_seconds)) / (self._step - first_step)
        step = self._pace.seconds_each(self._step, self.step_seconds)
        return duration((self._params.max_steps - self._step) * (step + between))
