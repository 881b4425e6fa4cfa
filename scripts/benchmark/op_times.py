"""Says what the threads of a training step do, by TensorFlow's own tracer.

    python -m scripts.benchmark.op_times SETTINGS

Prints milliseconds of all threads together by parts, medians over steps, as JSON.
"""

import ast
import collections
import itertools
import json
import statistics
import sys

import tensorflow as tf

from scripts.benchmark.in_tensorflow import FOREVER, Runs

_WARM_UP, _STEPS = 30, 40
# What is in the name of an op, in this order, and the part that its products are of.
_SCOPES = {
    'encoder': 'encoder, matrix products',
    'transpose_convolution': 'decoder, transpose convolutions',
    'decoder': 'decoder, matrix products',
}
# The transpose convolutions' gradients are written as matrix products too.
_PRODUCTS = ('MatMul', 'Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter')


def part_of(name, kind):
    """Names the part of a step that an op is of, by its scopes and its kind."""
    part = next((part for scope, part in _SCOPES.items() if scope in name), None)
    if part is None:
        return 'all else'
    return part if kind in _PRODUCTS else part.partition(',')[0] + ', other ops'


class _Traced(Runs):
    def in_session(self, fetches, config=None, feeds=FOREVER):
        """Yields milliseconds by parts, in place of running alone."""
        kinds = {op.name: op.type for op in tf.get_default_graph().get_operations()}
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            for feed in feeds:
                metadata, spent = tf.RunMetadata(), collections.Counter()
                session.run(fetches, feed, options, metadata)
                for device in metadata.step_stats.dev_stats:
                    for node in device.node_stats:
                        name = node.node_name.partition(':')[0]
                        microseconds = node.op_end_rel_micros - node.op_start_rel_micros
                        spent[part_of(name, kinds.get(name, ''))] += microseconds / 1e3
                yield spent


if __name__ == '__main__':
    steps = _Traced('', ast.literal_eval(sys.argv[1])).training()
    turns = list(itertools.islice(steps, _WARM_UP, _WARM_UP + _STEPS))
    parts = set().union(*turns)
    print(json.dumps({part: statistics.median(turn[part] for turn in turns) for part in parts}))
