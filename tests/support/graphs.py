"""Sessions for small graphs."""

import tensorflow as tf


def session():
    """A session on the default graph, whose variables have their initial values.

    It runs a graph as it is: to rewrite it takes longer than the few runs of a test.
    """
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    made = tf.Session(config=config)
    made.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    return made


def run(fetches):
    """What the tensors of the default graph are, with the initial values of its variables."""
    with session() as made:
        return made.run(fetches)
