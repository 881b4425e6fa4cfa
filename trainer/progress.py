"""What the user sees while a work goes on, and the clock of the training steps."""

import collections
import os
import sys
import time
from typing import Any, Deque, List, Optional, Tuple

import tensorflow as tf
import tqdm

from trainer import hparams, summaries
from trainer.errors import without_secrets
from trainer.hparams import HParams

_SECONDS_BETWEEN_LINES = 10.0
_RECENT_SECONDS = 30.0
_BAR = '{n_fmt}/{total_fmt} {percentage:3.0f}% |{bar}| {desc}'


def say(text: str) -> None:
    """Prints one line to stderr, above a progress bar if there is one; no secrets of URLs."""
    tqdm.tqdm.write(without_secrets(text), file=sys.stderr)
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Writes seconds as `1:02:03` or `2:03`."""
    return tqdm.tqdm.format_interval(max(seconds, 0.0))


def _has_terminal() -> bool:
    """Whether stderr is a terminal that tells its width; a bar of no width shows nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


class _Recent:
    """How long a piece of work took of late: a mean since the start forgets no slow minute.

    Args:
      done, seconds: pieces done, and seconds spent on them, so far.
    """

    def __init__(self, done: int, seconds: float):
        self._marks: Deque[Tuple[int, float]] = collections.deque([(done, seconds)])

    def seconds_each(self, done: int, seconds: float) -> float:
        """Returns the mean over the last half minute or more, given pieces and seconds by now."""
        self._marks.append((done, seconds))
        while seconds - self._marks[1][1] >= _RECENT_SECONDS:
            self._marks.popleft()
        first_done, first_seconds = self._marks[0]
        return (seconds - first_seconds) / (done - first_done)


class TrainingProgress(tf.train.SessionRunHook):
    """Shows step, negative ELBO, rate and time left; measures the time spent in steps.

    It has to stand before the CheckpointSaverHook among a session's hooks: what later hooks do
    after a step (saving, evaluating, exporting) then falls outside of the measured steps.

    A session may be lost with the steps since the last checkpoint, as where a parameter server
    dies, and be made anew: what was measured before counts on.

    Attributes:
      first_step: global step before the first step, None if there was none.
      elapsed_seconds: from the start of the first step to the end of the last.
      step_seconds: the part of `elapsed_seconds` spent in training steps.
    """

    def __init__(self, params: HParams):
        self._params = params
        self._bar: Optional[tqdm.tqdm] = None
        self._writer: Any = None
        self.first_step: Optional[int] = None
        self.elapsed_seconds = 0.0
        self.step_seconds = 0.0
        self._steps_done = 0
        self._rate_written_at = (0, 0.0)  # steps done, seconds spent in them

    def begin(self) -> None:
        # Estimator puts the loss of its EstimatorSpec here; model_fn's is the mean negative ELBO.
        self._loss = tf.get_collection(tf.GraphKeys.LOSSES)[0]
        self._global_step = tf.train.get_global_step()
        self._writer = summaries.open_event_file(self._params.model_dir)
        summaries.describe_training(self._writer, self._params)

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        del coord
        self._step = int(session.run(self._global_step))
        self._losses: List[float] = []
        self._shown_at = time.perf_counter()
        self._session_start = (self._step, self._shown_at, self.step_seconds)
        self._own_pace = _Recent(self._steps_done, self.step_seconds)
        self._pace = _Recent(self._step, self.step_seconds)
        if self._bar is None and _has_terminal():
            self._bar = tqdm.tqdm(
                total=self._params.max_steps,
                initial=self._step,
                bar_format='step ' + _BAR,
                desc='starting',
                dynamic_ncols=True,
                mininterval=0.0,
                miniters=0,
                file=sys.stderr,
            )

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        del run_context
        self._step_start = time.perf_counter()
        if self.first_step is None:
            self._start = self._step_start
            self.first_step = self._step
        return tf.train.SessionRunArgs([self._loss, self._global_step])

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        del run_context
        now = time.perf_counter()
        self.step_seconds += now - self._step_start
        self.elapsed_seconds = now - self._start
        loss, global_step = run_values.results
        # In a cluster others train too; here the step may be read before it is counted.
        self._step = max(self._step + 1, int(global_step))
        self._steps_done += 1
        self._losses = self._losses[-99:] + [float(loss)]
        self._write_rate()
        interval = 0.5 if self._bar is not None else _SECONDS_BETWEEN_LINES
        if now - self._shown_at >= interval or self._step >= self._params.max_steps:
            self._shown_at = now
            self._show()

    def end(self, session: tf.Session) -> None:
        del session
        self.close()

    def close(self) -> None:
        """Leaves the bar as it is and goes on below it; writes the events that still wait.

        TF keeps those of up to two minutes, and loses them where an error ends the session.
        """
        if self._writer is not None:
            self._writer.flush()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write_rate(self) -> None:
        """Adds the examples per second since the last summary; time between steps is left out."""
        interval = self._params.save_summary_steps
        if not interval or self._steps_done % interval:
            return
        steps, seconds = self._rate_written_at
        examples = (self._steps_done - steps) * self._params.batch_size
        rate = examples / (self.step_seconds - seconds)
        self._rate_written_at = (self._steps_done, self.step_seconds)
        value = tf.Summary.Value(tag=summaries.EXAMPLES_PER_SECOND, simple_value=rate)
        self._writer.add_summary(tf.Summary(value=[value]), self._step)

    def _show(self) -> None:
        loss = sum(self._losses) / len(self._losses)
        rate = self._params.batch_size / self._own_pace.seconds_each(
            self._steps_done, self.step_seconds
        )
        text = f'negative ELBO {loss:.2f} nats, {rate:,.0f} examples/s, {self._left()} left'
        convention = hparams.convention(self._params)
        if self._bar is not None:
            self._bar.n = self._step
            self._bar.set_description_str(text)
            return
        say(f'step {self._step:,}/{self._params.max_steps:,} ({convention}): {text}')

    def _left(self) -> str:
        """The time left: of steps as they took of late, and as much between them as so far."""
        first_step, start, step_seconds = self._session_start
        seconds = self._start + self.elapsed_seconds - start
        between = (seconds - (self.step_seconds - step_seconds)) / (self._step - first_step)
        step = self._pace.seconds_each(self._step, self.step_seconds)
        return duration((self._params.max_steps - self._step) * (step + between))


class ImageProgress:
    """Shows how many images of an evaluation are done, what came out so far, and the time left.

    Args:
      total: images of the evaluation.
      done: images that were done before.
    """

    def __init__(self, total: int, done: int):
        self._total = total
        self._shown_at = time.perf_counter()
        self._pace = _Recent(done, self._shown_at)
        self._bar: Optional[tqdm.tqdm] = None
        if _has_terminal():
            self._bar = tqdm.tqdm(
                total=total,
                initial=done,
                bar_format='image ' + _BAR,
                desc='starting',
                dynamic_ncols=True,
                mininterval=0.0,
                miniters=0,
                file=sys.stderr,
            )

    def show(self, done: int, text: str, each: int, unit: str) -> None:
        """Shows `done` images, `text`, and the rate of a `unit` of which an image is `each`, if it
        is time to."""
        now = time.perf_counter()
        interval = 0.5 if self._bar is not None else _SECONDS_BETWEEN_LINES
        if now - self._shown_at < interval and done < self._total:
            return
        self._shown_at = now
        seconds = self._pace.seconds_each(done, now)
        rate, left = each / max(seconds, 1e-9), duration((self._total - done) * seconds)
        text = f'{text}, {rate:,.0f} {unit}/s, {left} left'
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_description_str(text)
            return
        say(f'image {done:,}/{self._total:,}: {text}')

    def close(self) -> None:
        """Leaves the bar as it is and goes on below it."""
        if self._bar is not None:
            self._bar.close()
