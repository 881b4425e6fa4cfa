"""Kills parts of real clusters while they train MNIST, and prints what became of each training.

    ./scripts/run python scripts/cluster_faults.py [--only=NAME] [--schedules=20] [--data_dir=...]

Each row is a whole cluster (chief, 2 workers, a parameter server, an evaluator) started by
scripts/train_cluster.py, which starts killed processes anew. It is good when the cluster ends with
code 0, max_steps <= global_step < max_steps + the number of training processes (they do not wait
for each other), no checkpoint was ever followed by an older one, and the final export answers.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import psutil  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from scripts.laboratory import export_answers  # noqa: E402
from trainer.base import program  # noqa: E402
from trainer.settings import command_line  # noqa: E402

_TRAINING_PROCESSES = 3
_DEADLINE_SECONDS = 900.0
_KINDS = ['worker:0', 'worker:1', 'chief:0', 'ps:0', 'evaluator:0']


class Cluster:
    """A running scripts/train_cluster.py and what can be seen of it from outside."""

    def __init__(self, model_dir: str, max_steps: int, data_dir: str, options: List[str]):
        self.model_dir, self.max_steps = model_dir, max_steps
        self.steps_seen: List[int] = []
        self.log = os.path.join(model_dir, 'cluster.log')
        os.makedirs(model_dir, exist_ok=True)
        trainer_flags = [
            '--model_dir=' + model_dir,
            '--data_dir=' + data_dir,
            '--max_steps={}'.format(max_steps),
            '--save_checkpoints_steps={}'.format(max_steps // 6),
            '--num_threads=1',
        ]
        self._command = [sys.executable, os.path.join(ROOT, 'scripts', 'train_cluster.py')]
        self._command += ['--workers=2', '--ps=1', '--evaluator'] + options + ['--'] + trainer_flags
        self.start()

    def start(self) -> None:
        with open(self.log, 'a') as log:
            self.launcher = subprocess.Popen(self._command, stdout=log, stderr=log)

    def member(self, name: str) -> Optional[psutil.Process]:
        """The process of a task, such as 'worker:0'; None where it is not running."""
        kind, index = name.split(':')
        try:
            children = psutil.Process(self.launcher.pid).children()
        except psutil.NoSuchProcess:
            return None
        for child in children:
            try:
                task = json.loads(child.environ().get('TF_CONFIG', '{}')).get('task')
            except psutil.Error:
                continue
            if task == {'type': kind, 'index': int(index)}:
                return child
        return None

    def kill(self, name: str) -> None:
        process = self.member(name)
        if process is not None:
            process.send_signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """The launcher first, so that it starts nothing anew."""
        children = psutil.Process(self.launcher.pid).children(recursive=True)
        self.launcher.kill()
        self.launcher.wait()
        for child in children:
            child.kill()

    def look(self) -> int:
        """Returns the newest checkpoint's step, and remembers it."""
        state = tf.train.get_checkpoint_state(self.model_dir)
        step = int(state.model_checkpoint_path.rsplit('-', 1)[1]) if state else -1
        if not self.steps_seen or step != self.steps_seen[-1]:
            self.steps_seen.append(step)
        return step

    def wait(self, until: Callable[[], bool]) -> None:
        """Waits for `until`, or the launcher's end, or the deadline."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while self.launcher.poll() is None and not until():
            if time.monotonic() > deadline:
                self.kill_all()
                return
            time.sleep(0.3)
            self.look()


def kill_once(name: str) -> Callable[[Cluster], None]:
    """A fault: one process dies after a third of the training."""

    def fault(cluster: Cluster) -> None:
        cluster.wait(lambda: cluster.look() >= cluster.max_steps // 3)
        cluster.kill(name)

    return fault


def restart_job(cluster: Cluster) -> None:
    """A fault: everything dies after a third of the training; the same command is given again."""
    cluster.wait(lambda: cluster.look() >= cluster.max_steps // 3)
    cluster.kill_all()
    cluster.start()


def tell_job_to_end(cluster: Cluster) -> None:
    """A fault: the launcher is terminated after a third; the same command is given again.

    It passes SIGTERM on. The chief saves the step that it is in, with the help of the parameter
    server, which goes on for so long.
    """
    cluster.wait(lambda: cluster.look() >= cluster.max_steps // 3)
    cluster.launcher.terminate()
    code = cluster.launcher.wait()
    saved = 'terminated: step {} is saved'.format(cluster.look())
    with open(cluster.log) as f:
        if code != 128 + signal.SIGTERM or saved not in f.read():
            raise RuntimeError('code {}, and not {!r}'.format(code, saved))
    cluster.start()


def random_kills(seed: int) -> Callable[[Cluster], None]:
    """A fault: one to four processes die at random moments, from the start on."""

    def fault(cluster: Cluster) -> None:
        drawn = random.Random(seed)
        for _ in range(drawn.randint(1, 4)):
            moment = time.monotonic() + drawn.uniform(3, 25)
            cluster.wait(lambda moment=moment: time.monotonic() > moment)
            cluster.kill(drawn.choice(_KINDS))

    return fault


def outcome(cluster: Cluster) -> Dict[str, Any]:
    """Waits for the end; returns the facts of a row."""
    cluster.wait(lambda: False)
    code = cluster.launcher.wait()
    results = {}
    if os.path.exists(os.path.join(cluster.model_dir, 'results.json')):
        with open(os.path.join(cluster.model_dir, 'results.json')) as f:
            results = json.load(f)
    step = cluster.look()
    seen = cluster.steps_seen
    good = (
        code == 0
        and cluster.max_steps <= step < cluster.max_steps + _TRAINING_PROCESSES
        and seen == sorted(seen)
        and export_answers(os.path.join(cluster.model_dir, 'export', 'final'))
    )
    return {
        'good': good,
        'code': code,
        'global_step': step,
        'checkpoints': seen,
        'negative_elbo': results.get('validation', {}).get('negative_elbo'),
    }


def rows(schedules: int) -> Iterator[Any]:
    """Names, options of the launcher and faults of all rows."""
    yield 'nothing', [], lambda cluster: None
    for name in _KINDS:
        if name != 'worker:1':
            yield '{} killed'.format(name.split(':')[0]), [], kill_once(name)
    yield 'no evaluator', ['--noevaluator'], lambda cluster: None
    yield 'a worker never comes', ['--absent=worker:1'], lambda cluster: None
    yield 'whole job killed', [], restart_job
    yield 'whole job told to end', [], tell_job_to_end
    for seed in range(schedules):
        yield 'random kills, seed {}'.format(seed), [], random_kills(seed)


def main(argv: List[str]) -> None:
    del argv
    values = flags.FLAGS
    bad = 0
    print('{:<24} {:<6} {:>5} {:>12} {:>14}'.format('fault', 'good', 'code', 'global step', 'nats'))
    for name, options, fault in rows(values.schedules):
        if values.only and values.only not in name:
            continue
        model_dir = tempfile.mkdtemp(prefix='cluster-')
        cluster = Cluster(model_dir, values.max_steps, values.data_dir, options)
        fault(cluster)
        row = outcome(cluster)
        loss = '-' if row['negative_elbo'] is None else '{:.2f}'.format(row['negative_elbo'])
        print(
            '{:<24} {:<6} {:>5} {:>12} {:>14}'.format(
                name, 'yes' if row['good'] else 'NO', row['code'], row['global_step'], loss
            ),
            flush=True,
        )
        if row['good']:
            shutil.rmtree(model_dir)
        else:
            bad += 1
            print('    checkpoints {}; log: {}'.format(row['checkpoints'], cluster.log))
    sys.exit(1 if bad else 0)


def define_flags() -> None:
    command_line.define_flags(['data_dir', 'max_steps'])
    flags.FLAGS.set_default('max_steps', 600)
    flags.DEFINE_integer('schedules', 20, 'Rows of random kills.', lower_bound=0)
    flags.DEFINE_string('only', None, 'Only rows whose name has this in it.')


if __name__ == '__main__':
    define_flags()
    program.run(main)
