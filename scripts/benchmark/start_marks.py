"""A start of trainer.task that ends with its first step, and says what its time went to.

    python -m scripts.benchmark.start_marks SECONDS MODEL --max_steps=1 ...

SECONDS is `time.time()` at the start; MODEL is `vae`, or `one_weight` for all that is not the
network. Prints seconds by parts as JSON.
"""

import json
import os
import sys
import time

# When the process was started, by the clock of who started it.
_BEGAN = float(sys.argv.pop(1))
_SECONDS = {}


def _mark(part):
    """Counts what passed since the mark before."""
    _SECONDS[part] = time.time() - _BEGAN - sum(_SECONDS.values())


_mark('Python')
from trainer.base import program  # noqa: E402

_mark('import of what comes before TensorFlow')
import tensorflow as tf  # noqa: E402

_mark('import of TensorFlow')
from trainer import task  # noqa: E402
from trainer.training import hooks, optimizer, run  # noqa: E402

_mark('import of the trainer')


class _Last(tf.train.SessionRunHook):
    def after_create_session(self, session, coord):
        _mark('session, weights, step 0 saved')


class _First(tf.train.SessionRunHook):
    def after_run(self, run_context, run_values):
        _mark('first step')
        _SECONDS['in all'] = sum(_SECONDS.values())
        print(json.dumps(_SECONDS), flush=True)
        os._exit(0)


def _one_weight(features, labels, mode, params, config):
    del labels, config
    weight = tf.get_variable('weight', [], initializer=tf.zeros_initializer(), use_resource=True)
    loss = tf.reduce_mean(tf.square(features['images'] - weight))
    train_op = optimizer.training_step(tf.gradients(loss, [weight]), params).train_op
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def _marked(model_fn):
    def marked(features, labels, mode, params, config):
        _mark('flags, images, Estimator')
        spec = model_fn(features, labels, mode, params, config)
        _mark('graph of the model')
        return spec

    return marked


if __name__ == '__main__':
    run.model_fn = _marked({'vae': run.model_fn, 'one_weight': _one_weight}[sys.argv.pop(1)])
    in_order = hooks.in_order
    hooks.in_order = lambda *arguments: [_First(), *in_order(*arguments), _Last()]
    task.define_flags()
    program.run(task.main, must_print=False)
