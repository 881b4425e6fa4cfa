"""Copies of a part of a graph."""

import pytest
import tensorflow as tf

from trainer.training.scope_copy import ScopeCopy


def copied(name):
    """A copy of the scope `source/`, which takes the placeholder `b` in place of `a`."""
    with tf.name_scope(name) as scope:
        pass
    graph = tf.get_default_graph()
    ends = [[graph.get_tensor_by_name(end + ':0')] for end in 'ab']
    return ScopeCopy('source/', scope, *ends)


@pytest.fixture
def session():
    with tf.Graph().as_default(), tf.Session() as session:
        for name in 'ab':
            tf.placeholder(tf.float32, [], name)
        yield session


def test_a_copy_takes_other_tensors_and_shares_what_is_outside(session):
    graph = tf.get_default_graph()
    a, b = [graph.get_tensor_by_name(name) for name in ('a:0', 'b:0')]
    weight = tf.get_variable('weight', initializer=3.0, use_resource=True)
    with tf.name_scope('source'):
        product = weight * a
        with tf.control_dependencies([tf.square(product)]):
            parts = tf.split(tf.stack([product, a]), 2)
        looped = tf.while_loop(lambda n: n < 100.0, lambda n: n + product, [a])
    copy = copied('target')
    copy.extend()
    with tf.name_scope('source/'):
        # Of a scope that was copied already.
        (gradient,) = tf.gradients(tf.square(product), [a])
        second = parts[1] * looped
    copy.extend()
    session.run(weight.initializer)
    feeds = {a: 5.0, b: 7.0}
    assert session.run(copy.of(product), feeds) == 21.0
    assert session.run(copy.of(looped), feeds) == 112.0
    assert session.run(copy.of(second), feeds).tolist() == [7.0 * 112.0]
    assert session.run(second, feeds).tolist() == [5.0 * 110.0]
    # d (3 b)^2 / db = 18 b.
    assert session.run(copy.of(gradient), feeds) == 126.0
    assert copy.of(product).name.startswith('target/')
    assert copy.of(a) is b and copy.of(None) is None


def test_a_copy_that_would_be_wrong_is_refused(session):
    a = tf.get_default_graph().get_tensor_by_name('a:0')
    with tf.name_scope('source'):
        doubled = 2.0 * a
    with tf.name_scope('elsewhere'):
        tripled = doubled + a
    with tf.name_scope('source/'):
        tf.negative(tripled)
    with pytest.raises(ValueError, match='elsewhere/add depends on source/, and is outside of it'):
        copied('target').extend()


def test_a_copy_waits_for_what_the_source_waits_for(session):
    graph = tf.get_default_graph()
    a, b = [graph.get_tensor_by_name(name) for name in ('a:0', 'b:0')]
    count = tf.get_variable('count', initializer=0.0)
    once = tf.assign_add(count, 1.0)
    with tf.name_scope('source'), tf.control_dependencies([once]):
        added = tf.assign_add(count, a)
    copy = copied('target')
    copy.extend()
    with tf.name_scope('source/'), tf.control_dependencies([added]):
        last = tf.constant(2.0)
    copy.extend()
    session.run(count.initializer)
    assert session.run(copy.of(last), {b: 7.0}) == 2.0
    assert session.run(count) == 8.0


def test_a_copy_that_would_not_wait_is_refused(session):
    a = tf.get_default_graph().get_tensor_by_name('a:0')
    with tf.control_dependencies([tf.no_op('before')]), tf.name_scope('source'):
        tf.negative(a)
    with pytest.raises(ValueError, match='source/Neg waits for before, which has no output'):
        copied('target').extend()
