"""The part of a process in a distributed training, as `TF_CONFIG` tells it.

Training is TensorFlow's own between-graph replication: weights live on parameter servers (`ps`); a
`chief` and `worker`s apply gradients of batches of their own without waiting for each other; an
`evaluator` evaluates the checkpoints. In TF 1.14 only this survives the loss of any process.
"""

import contextlib
import dataclasses
import json
import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from trainer.base.errors import UserError

TYPES = ('chief', 'worker', 'ps', 'evaluator')
_ONE_OF_TYPES = 'one of ' + ', '.join(TYPES)
# What TensorFlow's gRPC takes.
_HOST = re.compile(r'[!-.0-~]+:([0-9]{1,5})')


@dataclasses.dataclass(frozen=True)
class Task:
    """What this process does."""

    type: str = 'local'  # For a training in one process, else one of `TYPES`.
    index: int = 0  # Number among the tasks of its type.
    replica: int = 0  # Number among the processes that train, the chief being 0.
    replicas: int = 1  # Number of processes that train.
    has_evaluator: bool = False  # Whether the cluster is known to have an evaluator.
    tf_config: str = ''  # The corrected `TF_CONFIG`.

    @property
    def is_leader(self) -> bool:
        """Whether it saves checkpoints and leaves the artifacts."""
        return self.type in ('local', 'chief')

    def hosts(self, kind: str) -> List[str]:
        """The addresses of the cluster's tasks of a type, in the order of their index."""
        return json.loads(self.tf_config or '{"cluster": {}}')['cluster'].get(kind, [])

    def __str__(self) -> str:
        return f'{self.type} {self.index}'


LOCAL = Task()


def join(environ: Mapping[str, str] = os.environ) -> Task:
    """Reads `TF_CONFIG` and corrects it where TF 1.14's `RunConfig` would misread it.

    * A single training process is a local training: `train_and_evaluate` would neither evaluate nor
      export in a cluster of one.
    * `master`, the chief's older name, becomes `chief`: TF allows no evaluator beside a master.
    * Without a chief, worker 0 leads and the others move up, as Kubernetes' TFJob has it.

    `CLUSTER_SPEC`, which Vertex AI sets beside it, tells whether there is an evaluator.

    Raises UserError where `TF_CONFIG` is malformed, or is a cluster that cannot train.
    """
    if not environ.get('TF_CONFIG'):
        return LOCAL
    config = _parse('TF_CONFIG', environ)
    cluster = {kind: list(hosts) for kind, hosts in config.get('cluster', {}).items() if hosts}
    kind, index = _task_of(config, cluster)
    if not cluster and kind in ('', 'chief', 'master', 'worker') and index == 0:
        return LOCAL
    _check_hosts(cluster)
    if 'master' in cluster:
        cluster['chief'] = cluster.pop('master')
    kind = 'chief' if kind == 'master' else kind
    _check_place(cluster, kind, index)
    if 'chief' not in cluster and cluster.get('worker'):
        cluster['chief'], cluster['worker'] = cluster['worker'][:1], cluster['worker'][1:]
        if kind == 'worker':
            kind, index = ('chief', 0) if index == 0 else ('worker', index - 1)
    cluster = {name: hosts for name, hosts in cluster.items() if hosts}
    has_evaluator = 'evaluator' in cluster
    if not has_evaluator and environ.get('CLUSTER_SPEC'):
        # Vertex AI leaves it out of TF_CONFIG's cluster; worker pool 3 is always it.
        has_evaluator = bool(_parse('CLUSTER_SPEC', environ).get('cluster', {}).get('workerpool3'))
    training = len(cluster.get('chief', [])) + len(cluster.get('worker', []))
    if kind in ('', 'chief') and training == 1 and 'ps' not in cluster and not has_evaluator:
        return LOCAL
    _check_training(cluster, kind, training)
    # Not the fields that services add: nothing of TF's reads them.
    tf_config = {'cluster': cluster, 'task': {'type': kind, 'index': index}}
    replica = index + 1 if kind == 'worker' else 0
    return Task(kind, index, replica, training, has_evaluator, json.dumps(tf_config))


@contextlib.contextmanager
def environment(task: Task) -> Iterator[None]:
    """Sets `TF_CONFIG` as `RunConfig`, which reads nothing else, has to find it for `task`."""
    before = os.environ.pop('TF_CONFIG', None)
    if task.tf_config:
        os.environ['TF_CONFIG'] = task.tf_config
    try:
        yield
    finally:
        os.environ.pop('TF_CONFIG', None)
        if before is not None:
            os.environ['TF_CONFIG'] = before


def _parse(name: str, environ: Mapping[str, str]) -> Dict[str, Any]:
    try:
        value = json.loads(environ[name])
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{name} is not valid JSON ({error}): correct it, or unset it to train in one process.'
        ) from error
    cluster = value.get('cluster', {}) if isinstance(value, dict) else None
    if not isinstance(cluster, dict) or not all(map(_are_hosts, cluster.values())):
        raise UserError(
            # Not all of it: services add fields of their own, with who knows what in them.
            f'{name} must be an object whose "cluster" has lists of hosts, each as name:port, not '
            f'{json.dumps(cluster):.500}: correct it, or unset it to train in one process.'
        )
    return value


def _are_hosts(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(host, str) for host in value):
        return False
    found = [_HOST.fullmatch(host) for host in value]
    return all(match and 1 <= int(match.group(1)) <= 65535 for match in found)


def _task_of(config: Dict[str, Any], cluster: Dict[str, List[str]]) -> Tuple[str, int]:
    task = config.get('task') or {}
    try:
        kind, index = str(task.get('type', '')), task.get('index')
        if index is None and len(cluster.get(kind, [])) <= 1:
            return kind, 0
        if not isinstance(index, str) and type(index) is not int:
            raise TypeError(index)
        return kind, int(index)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f'TF_CONFIG has the task {json.dumps(task):.500}: it must be an object with a type '
            'and a whole number as index.'
        ) from error


def _refuse(*reasons: Tuple[Any, str]) -> None:
    """Raises UserError with the first sentence whose condition holds."""
    for holds, sentence in reasons:
        if holds:
            raise UserError('TF_CONFIG has ' + sentence)


def _check_hosts(cluster: Dict[str, List[str]]) -> None:
    """Refuses hosts that TF would not start with, or that would do the same work twice."""
    # Nobody connects to an evaluator.
    found = [host for kind, hosts in cluster.items() if kind != 'evaluator' for host in hosts]
    twice = next((host for host in found if found.count(host) > 1), None)
    counts = {kind: len(cluster.get(kind, [])) for kind in ('chief', 'master', 'evaluator')}
    two_names = 'a chief and a master, two names for one: leave one away.'
    _refuse(
        ('chief' in cluster and 'master' in cluster, two_names),
        *((n > 1, f'{n} {kind}s: there can be only one.') for kind, n in counts.items()),
        (twice, f'the address {twice} twice: each process needs one of its own.'),
    )


def _check_place(cluster: Dict[str, List[str]], kind: str, index: int) -> None:
    """Refuses a task that is not one of the cluster's."""
    # Vertex AI has an evaluator that is not in its cluster.
    count = len(cluster.get(kind, [])) or int(kind == 'evaluator')
    is_outside = kind and not 0 <= index < count
    _refuse(
        (kind and kind not in TYPES, f'a task of type {kind!r:.500}: it must be {_ONE_OF_TYPES}.'),
        (is_outside, f'the task {kind} {index}, but its cluster has {count} of that type.'),
    )


def _check_training(cluster: Dict[str, List[str]], kind: str, training: int) -> None:
    """Refuses clusters that TF would hang in, or train apart in."""
    apart = (
        f'{training} training processes and no parameter server (ps), so they could not share '
        'weights: add one.'
    )
    _refuse(
        (not kind, f'a cluster, but its task has no type: it must be {_ONE_OF_TYPES}.'),
        ('chief' not in cluster, 'a cluster without a chief or worker: nobody would train.'),
        (training > 1 and 'ps' not in cluster, apart),
    )


def device_filters(task: Task) -> List[str]:
    """Devices a session of this task looks at, as `RunConfig` sets them where it is given no
    session_config; without them it waits for every worker to come."""
    return {
        'chief': ['/job:ps', '/job:chief'],
        'worker': ['/job:ps', f'/job:worker/task:{task.index}'],
        'ps': ['/job:ps', '/job:worker', '/job:chief', '/job:master'],
    }.get(task.type, [])
