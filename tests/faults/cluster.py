"""Faults of a whole cluster on this machine, whose processes are killed and started anew.

It ends well with code 0, at most one step too many of each training process (they do not wait for
each other), no checkpoint that followed a newer one, and a final export that answers.
"""

import contextlib
import json
import math
import signal
import sys

import psutil

from tests.faults import run_folder
from trainer.checkpoints import listing

_TASKS = ('worker:0', 'worker:1', 'chief:0', 'ps:0', 'evaluator:0')
_TRAINERS = 3
_MOST_NATS = 130.0  # After a thousand steps.


class Cluster:
    """A running scripts/train_cluster.py, and what can be seen of it from outside."""

    def __init__(self, attempt, *options):
        self.attempt, self._options, self.steps_seen = attempt, options, []
        self.start()

    def start(self):
        command = [sys.executable, 'scripts/train_cluster.py', '--workers=2', '--ps=1']
        command += ['--evaluator', *self._options, '--', *self.attempt.flags()]
        self.launcher = self.attempt.run(command)

    def has_reached(self, step):
        """Notes the step by which the newest checkpoint is named; returns whether it is as late."""
        newest = listing.latest(self.attempt.model_dir) or 'none-0'
        self.steps_seen.append(int(newest.rpartition('-')[2]))
        return self.steps_seen[-1] >= step

    def meet(self, fault):
        """Kills a task such as 'worker:0'; ends the whole job by a signal, and starts it again."""
        if fault == signal.SIGTERM:
            self.launcher.send_signal(fault)
            self.attempt.ends(self.launcher, 143)
            self.has_reached(0)
            saved = 'terminated: step {} is saved'.format(self.steps_seen[-1])
            self.attempt.expect(saved in self.launcher.printed(), 'it did not say ' + saved)
        elif fault == signal.SIGKILL:
            self.launcher.kill_all()
        if not self.launcher.is_running():
            self.start()
        for process in self.launcher.members():
            with contextlib.suppress(psutil.Error, KeyError):
                task = json.loads(process.environ()['TF_CONFIG'])['task']
                if '{type}:{index}'.format(**task) == fault:
                    process.kill()

    def ends_well(self):
        attempt, max_steps = self.attempt, self.attempt.settings['max_steps']
        self.launcher.wait_until(lambda: self.has_reached(math.inf))
        attempt.ends(self.launcher, 0)
        step, seen = self.steps_seen[-1], self.steps_seen
        attempt.expect(0 <= step - max_steps < _TRAINERS, 'it ended at step {}'.format(step))
        back = [pair for pair in zip(seen, seen[1:]) if pair[0] > pair[1]]
        attempt.expect(not back, 'checkpoints went back: {}'.format(back))
        export = run_folder.final_export(attempt.model_dir)
        attempt.expect(run_folder.export_answers(export), 'the final export does not answer')
        nats = run_folder.recorded_results(attempt.model_dir)['validation']['negative_elbo']
        attempt.expect(nats <= _MOST_NATS or max_steps < 1000, '{:.2f} nats'.format(nats))
        anew = self.launcher.printed().count('starting it anew')
        attempt.user_saw = 'step {}, {:.2f} nats, {} started anew'.format(step, nats, anew)


def train(attempt, *faults, options=(), max_steps=300, at_random=False):
    """A cluster meets faults after a third of the steps and each further sixth, or at random."""
    attempt.settings = {'max_steps': max_steps, 'num_threads': 1}
    attempt.settings['save_checkpoints_steps'] = max_steps // 6
    cluster = Cluster(attempt, *options)
    for number, fault in enumerate(faults, 2):
        cluster.launcher.wait_until(lambda n=number: cluster.has_reached(n * max_steps / 6))
        cluster.meet(fault)
    for _ in range(attempt.random.randint(1, 4) if at_random else 0):
        seconds = attempt.random.uniform(3, 25)
        cluster.launcher.wait_until(lambda: cluster.has_reached(math.inf), seconds)
        cluster.meet(attempt.random.choice(_TASKS))
    cluster.ends_well()
