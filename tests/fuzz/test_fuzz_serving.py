"""Random inputs of every signature: finite outputs of the right shape, or an error."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from tests.fuzz.test_fuzz_files import damaged, png
from tests.support import serving_models
from tests.support.fuzzing import examples
from trainer.serving import signatures
from trainer.serving.signatures import DEFAULT

ROWS, COLUMNS = serving_models.GREY[:2]
LATENTS = 3
# TensorFlow's own, and what its Session says of a value that no tensor can be made of.
ERRORS = (tf.errors.InvalidArgumentError, ValueError, TypeError, OverflowError)
NUMBERS = [
    0.0,
    1.0,
    0.5,
    -0.0,
    1e-30,
    1.0000001,
    -1e-30,
    2.0,
    np.nan,
    np.inf,
    -np.inf,
    1e6,
    2e6,
    3e38,
    -1e30,
]
PNG = png(ROWS, COLUMNS, (b'\0' + bytes(range(COLUMNS))) * ROWS)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """Calls of the signatures of an export by name: through Session.run, and without its checks."""
    export_dir, _, _ = serving_models.write_export(tmp_path_factory.mktemp('model'))
    session = tf.Session(graph=tf.Graph())
    with session.graph.as_default():
        model = tf.saved_model.load(session, [tf.saved_model.SERVING], export_dir)

    def checked(signature):
        feeds = {key: info.name for key, info in signature.inputs.items()}
        fetches = {key: info.name for key, info in signature.outputs.items()}
        return lambda inputs: session.run(fetches, {feeds[key]: inputs[key] for key in inputs})

    def unchecked(signature):
        # What is fed goes to the graph as it is, as in TensorFlow Serving.
        keys = sorted(signature.inputs)
        fetches = {key: info.name for key, info in signature.outputs.items()}
        call = session.make_callable(fetches, [signature.inputs[key].name for key in keys])
        types = [tf.as_dtype(signature.inputs[key].dtype).as_numpy_dtype for key in keys]
        return lambda inputs: call(*[np.asarray(inputs[key], of) for key, of in zip(keys, types)])

    definitions = dict(model.signature_def)
    return [{name: how(definitions[name]) for name in definitions} for how in (checked, unchecked)]


def arrays(example_shape, good):
    """Batches of the shape, or of any; numbers of the list `good`, and at times any."""

    def filled(drawn):
        shape, seed, odd, kind = drawn
        values = np.random.RandomState(seed).choice(good, size=shape)
        if odd is not None and values.size:
            values.flat[seed % values.size] = odd
        with np.errstate(over='ignore'):
            return values.astype(kind)

    right = strategies.sampled_from([0, 1, 2, 3, 7, 2000]).map(lambda n: (n,) + example_shape)
    wrong = strategies.lists(strategies.integers(0, 13), max_size=5).map(tuple)
    return strategies.tuples(
        strategies.one_of(right, right, wrong),
        strategies.integers(0, 2**31),
        strategies.one_of(strategies.none(), strategies.sampled_from(NUMBERS)),
        strategies.sampled_from([np.float32, np.float32, np.float64, np.float16]),
    ).map(filled)


IMAGES = arrays((ROWS, COLUMNS), [0.0, 0.25, 1.0])
INTEGERS = strategies.one_of(
    strategies.integers(0, 12),
    strategies.integers(-(2**31), 2**31 - 1),
    strategies.sampled_from([10000, 10001, 1000, 1001, -1, 2**31, 2**63, [3], [[1, 2]], [], 'a']),
)


def is_integer(value, low, high):
    return type(value) is int and low <= value <= high


def are_images(values):
    """Whether they are as the documentation of the signatures has them."""
    with np.errstate(invalid='ignore'):
        values = np.asarray(values, np.float32)
        right = values.shape[1:] == (ROWS, COLUMNS) and values.ndim == 3
        return right and bool(np.all((values >= 0) & (values <= 1)))


def outcome(call, inputs, is_good, shapes):
    """Checks the outputs of good inputs, and that bad ones are refused."""
    if not is_good:
        with pytest.raises(ERRORS):
            call(inputs)
        return
    outputs = call(inputs)
    assert {name: value.shape for name, value in outputs.items()} == shapes
    assert all(np.all(np.isfinite(value)) for value in outputs.values())


def reconstructed(count):
    shapes = dict.fromkeys(('negative_elbo', 'reconstruction_loss', 'kl_divergence'), (count,))
    posterior = dict.fromkeys(('mean', 'scale'), (count, LATENTS))
    return dict(shapes, reconstruction=(count, ROWS, COLUMNS), **posterior)


@examples(250)
@hypothesis.given(
    IMAGES,
    strategies.sampled_from([DEFAULT, 'reconstruct', 'encode']),
    strategies.booleans(),
)
def test_images(served, images, name, is_checked):
    shapes = reconstructed(len(images) if images.ndim else 0)
    if name == 'encode':
        shapes = {key: shapes[key] for key in ('mean', 'scale')}
    outcome(served[not is_checked][name], {'images': images}, are_images(images), shapes)


@examples(200)
@hypothesis.given(arrays((LATENTS,), [0.0, 1.0, -3.0, 50.0, -1e5]), strategies.booleans())
def test_latents(served, latents, is_checked):
    with np.errstate(over='ignore', invalid='ignore'):
        values = latents.astype(np.float32)
        good = values.ndim == 2 and values.shape[1] == LATENTS and np.all(np.abs(values) <= 1e6)
    shapes = {'images': (len(latents) if latents.ndim else 0, ROWS, COLUMNS)}
    outcome(served[not is_checked]['decode'], {'latents': latents}, good, shapes)


TEMPERATURES = strategies.one_of(
    strategies.sampled_from(NUMBERS + [1e6, 1.1e6, [1.0]]), strategies.floats(0, 10, width=32)
)


@examples(250)
@hypothesis.given(INTEGERS, INTEGERS, strategies.one_of(strategies.none(), TEMPERATURES))
def test_draws(served, count, seed, temperature):
    inputs = {'count': count, 'seed': seed}
    good = is_integer(count, 0, signatures.MAX_COUNT) and is_integer(seed, -(2**31), 2**31 - 1)
    name = 'generate'
    if temperature is not None:
        name, inputs = 'generate_at_temperature', dict(inputs, temperature=temperature)
        good = good and isinstance(temperature, float) and 0 <= np.float32(temperature) <= 1e6
    outcome(served[0][name], inputs, good, {'images': (count, ROWS, COLUMNS)} if good else {})


@examples(150)
@hypothesis.given(IMAGES.filter(lambda images: len(images.ravel()) < 10000), INTEGERS)
def test_interpolations(served, images, steps):
    good = are_images(images) and is_integer(steps, 2, signatures.MAX_STEPS)
    shapes = {'interpolations': (max(len(images) - 1, 0), steps, ROWS, COLUMNS)} if good else {}
    outcome(served[0]['interpolate'], {'images': images, 'steps': steps}, good, shapes)


@examples(200)
@hypothesis.given(
    strategies.lists(
        strategies.one_of(
            strategies.just(PNG),
            damaged(PNG),
            strategies.sampled_from(
                [png(100000, 100000), png(20000, 20000), png(0, 0), png(12, 8, bytes(12 * 9))]
            ),
        ),
        max_size=4,
    )
)
def test_image_files(served, contents):
    inputs = {'image_bytes': np.array(contents + [None], object)[:-1]}
    shapes = reconstructed(len(contents))
    call = served[0]['reconstruct_png']
    if all(content.startswith(PNG) for content in contents):
        outcome(call, inputs, True, shapes)
        return
    # Of some damage, as in a checksum that TensorFlow passes over, an image comes out all the same.
    try:
        outcome(call, inputs, True, shapes)
    except tf.errors.InvalidArgumentError as error:
        assert error.message


@pytest.mark.filterwarnings('ignore::numpy.ComplexWarning')
@pytest.mark.parametrize(
    'fed', ['missing', 'text', 'bytes', 'ragged', 'none', 'objects', 'complex']
)
def test_inputs_of_another_kind(served, fed):
    values = {
        'text': 'image',
        'bytes': np.array([b'a']),
        'ragged': [[[0.0]], [[0.0, 1.0]]],
        'none': None,
        'objects': np.array([object()]),
        'complex': np.zeros([1, ROWS, COLUMNS, 2], np.complex64),
    }
    inputs = {} if fed == 'missing' else {'images': values[fed]}
    outcome(served[0]['encode'], inputs, False, {})
