"""Writes one SavedModel folder: graph and weights, and what a reader needs to trust them.

`assets.extra` holds a model card, golden inputs with their outputs, the program that checks them in
any runtime, thresholds with the validation scores that they are of, and, on demand, TF Serving's
warm-up requests.
"""

import functools
import os
import pathlib
import time
from typing import Any, Dict, List, NamedTuple, Optional, Set

import numpy as np
import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer
from tensorflow.tools.graph_transforms import TransformGraph

from trainer.base import files, row_means, scaling
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.model import vae
from trainer.model.priors import Prior
from trainer.serving import exports, golden, model_card, thresholds
from trainer.serving.checked_inputs import Signature
from trainer.serving.golden import Golden
from trainer.serving.signatures import DEFAULT, build_signatures
from trainer.serving.thresholds import ValidationImages
from trainer.settings.table import HParams

SETTINGS_NAME = 'settings.json'
_WARMUP_NAME = 'tf_serving_warmup_requests'  # TF Serving looks for this name.


class Options(NamedTuple):
    """How a SavedModel is written."""

    signature: Optional[str] = None  # The only one, then also `serving_default`; None for all.
    low_latency: bool = False  # For one example at a time: see `_served`.
    warmup: bool = False  # Adds requests that TF Serving sends itself after loading.


ALL_SIGNATURES = Options()


class _Served(NamedTuple):
    graph: tf.Graph
    signatures: Dict[str, Signature]
    of_checkpoint: List[tf.Variable]
    weights: tf.train.Saver  # Of those.
    variables: tf.train.Saver  # Of all that is served.
    validation_scores: Optional[tf.Variable]


def write(
    folder: str,
    checkpoint_path: str,
    params: HParams,
    options: Options = ALL_SIGNATURES,
    evaluation: Optional[Dict[str, Any]] = None,
    validation: Optional[ValidationImages] = None,
) -> None:
    """Writes the SavedModel with the weights of a checkpoint into the new `folder`.

    Args:
      evaluation: validation metrics for the model card, where they are known.
      validation: what scores are quantiles among; without, no signature gives quantiles.

    Raises:
      UserError: the checkpoint cannot be read or is of another network, or warm-up requests are
        wanted and tensorflow-serving-api is not installed.
    """
    if options.warmup:
        _serving_api()
    num_scores = validation.num_images if validation else 0
    served = _served(checkpoint_path, params, num_scores, options.low_latency)
    extra = os.path.join(folder, 'assets.extra')
    # The graph rewriting of 1.14 would take longer than the two runs that it speeds up.
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with served.graph.as_default(), tf.Session(config=config) as session:
        weights.restore(session, checkpoint_path, served.weights, served.of_checkpoint)
        scored = _scored(session, served, validation, params) if validation else None
        examples = _chosen(golden.answers(session, served.signatures, params), options.signature)
        signatures = _chosen(served.signatures, options.signature)
        if options.low_latency or options.signature:
            _write_frozen(folder, session, signatures, options.low_latency)
        else:
            _write_graph(folder, session, signatures, served.variables)
    if scored:
        thresholds.write(extra, scored)
    files.write_json(os.path.join(extra, SETTINGS_NAME), settings(params))
    files.write_bytes(os.path.join(extra, 'golden.npz'), golden.npz(examples))
    verify_program = pathlib.Path(__file__).with_name('verify_export.py').read_bytes()
    files.write_bytes(os.path.join(extra, 'verify_export.py'), verify_program)
    card = model_card.model_card(signatures, checkpoint_path, params, evaluation, scored)
    files.write_bytes(os.path.join(extra, 'README.md'), card.encode('utf-8'))
    if options.warmup:
        _write_warmup(os.path.join(extra, _WARMUP_NAME), examples)


def settings(params: HParams) -> Dict[str, Any]:
    """Returns what those who prepare images for the model have to know of it."""
    return {
        'data': params.data_name,
        'image_shape': list(params.image_shape),
        'is_binarised': params.is_binarised,
        'likelihood': params.likelihood,
        'own': bool(params.source_digest),  # Whether of a user's own images, not of TFDS's.
        'image_size': params.image_size,
        'fit': params.fit,
        'columns': [name for name, _, _ in params.scaling],  # Of a series, as the next three.
        'stride': params.stride,
        'missing': params.missing,
        'time_column': params.time_column,
    }


def _scored(
    session: tf.Session, served: _Served, validation: ValidationImages, params: HParams
) -> thresholds.Scored:
    """Scores the validation images by the very graph that is served, which then has the scores."""
    (images,) = served.signatures[DEFAULT].inputs.values()
    score, served_shape = served.signatures[DEFAULT].outputs[thresholds.SCORE], params.served_shape
    wanted = [score]
    if validation.starts is not None:
        wanted.append(served.signatures['explain'].outputs['nats_by_reading'])
    found = []
    for batch in validation.batches():
        fed = scaling.in_units(batch.reshape([-1, *served_shape]), params.scaling)
        scores, *nats = session.run(wanted, {images: fed})
        found.append([scores, *(each.sum(axis=-1) for each in nats)])
    scores, *nats = (np.concatenate(part) for part in zip(*found))
    rows = None
    if validation.starts is not None:
        rows = np.float32(row_means.of_windows(nats[0], validation.starts))
    window = params.rows if params.is_series else 0
    scored = thresholds.Scored(np.sort(scores), validation.in_split, window, rows)
    assert served.validation_scores is not None
    served.validation_scores.load(scored.scores, session)
    return scored


def _served(checkpoint_path: str, params: HParams, num_scores: int, low_latency: bool) -> _Served:
    """The served graph, with the learned parameters of a prior as constants.

    With `low_latency` all steps of the LSTM are one op; so that what depends on the weights alone
    is computed once, here, they are written as constants.
    """
    with tf.Graph().as_default():
        prior = vae.prior(params)
        if not prior.parameters:
            return _served_without_parameters(params, num_scores, low_latency)
        with tf.Session() as session:
            weights.restore(session, checkpoint_path, tf.train.Saver())
            parameters = session.run(prior.parameters)
    return _served_graph(params, prior, parameters, num_scores, low_latency)


@functools.lru_cache(maxsize=1)  # Built once, though a run exports several checkpoints.
def _served_without_parameters(params: HParams, num_scores: int, low_latency: bool) -> _Served:
    with tf.Graph().as_default():
        return _served_graph(params, vae.prior(params), [], num_scores, low_latency)


def _served_graph(
    params: HParams,
    prior: Prior,
    parameters: List[np.ndarray],
    num_scores: int,
    low_latency: bool,
) -> _Served:
    with tf.Graph().as_default() as graph:
        constant = prior.with_parameters([tf.constant(value) for value in parameters])
        scores = None
        if num_scores:
            # Set once, and constant from then on. Not a local variable: TensorFlow 2 makes such
            # zeros again when it has loaded them.
            scores = tf.get_variable(
                'validation_scores', [num_scores], use_resource=True, trainable=False,
                initializer=tf.zeros_initializer(),
            )  # fmt: skip
        signatures = build_signatures(params, constant, scores, low_latency)
        # It is no weight: checkpoints do not hold it.
        of_checkpoint = [one for one in tf.global_variables() if one is not scores]
        of_weights = tf.train.Saver(of_checkpoint)
        return _Served(graph, signatures, of_checkpoint, of_weights, tf.train.Saver(), scores)


def _chosen(by_signature: Dict[str, Any], name: Optional[str]) -> Dict[str, Any]:
    """All signatures, or the one of that `name`, which clients of one signature find by default."""
    if name is None:
        return by_signature
    return {DEFAULT: by_signature[name], name: by_signature[name]}


def _write_graph(
    folder: str, session: tf.Session, signatures: Dict[str, Signature], saver: tf.train.Saver
) -> None:
    by_name = {name: _signature_def(signature) for name, signature in signatures.items()}
    builder = tf.saved_model.Builder(folder)
    builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], by_name, saver=saver)
    builder.save()


def _signature_def(signature: Signature) -> Any:
    inputs, outputs = [
        {name: tf.saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}
        for tensors in signature
    ]
    for info in inputs.values():
        if info.tensor_shape.unknown_rank:
            info.tensor_shape.CopyFrom(tf.TensorShape([]).as_proto())
    return tf.saved_model.build_signature_def(inputs, outputs, tf.saved_model.PREDICT_METHOD_NAME)


def _write_frozen(
    folder: str, session: tf.Session, signatures: Dict[str, Signature], is_folded: bool
) -> None:
    """Writes only what `signatures` need, with constants in place of variables."""
    tensors = [list(part.values()) for signature in signatures.values() for part in signature]
    names = sorted({tensor.op.name for part in tensors for tensor in part})
    graph_def = session.graph.as_graph_def()
    graph_def = tf.graph_util.convert_variables_to_constants(session, graph_def, names)
    if is_folded:
        fed = {tensor.op.name for one in signatures.values() for tensor in one.inputs.values()}
        graph_def = _folded(graph_def, names, fed)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name='')

        def frozen(tensors: Dict[str, tf.Tensor]) -> Dict[str, tf.Tensor]:
            return {key: graph.get_tensor_by_name(tensor.name) for key, tensor in tensors.items()}

        signatures = {key: Signature(*map(frozen, one)) for key, one in signatures.items()}
        with tf.Session(graph=graph) as frozen_session:
            saver = tf.train.Saver(allow_empty=True)
            _write_graph(folder, frozen_session, signatures, saver)


def _folded(graph_def: tf.GraphDef, names: List[str], fed: Set[str]) -> tf.GraphDef:
    """Computes what depends on constants alone; then keeps one of equal constants.

    Else the weights would be there once for each signature that uses them. Grappler folds, because
    `fold_constants` of `graph_transforms` 1.14 makes required placeholders of those with a default;
    of those that are `fed` it sees no default, whose shape it would take for what is fed.
    """
    nodes = {node.name: node for node in graph_def.node}
    optional = {name for name in fed if nodes[name].op == 'PlaceholderWithDefault'}
    kept = optional.union(*(nodes[name].input for name in optional))
    seen = tf.GraphDef.FromString(graph_def.SerializeToString())
    for node in seen.node:
        if node.name in optional:
            node.op = 'Placeholder'
            del node.input[:]
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(seen, name='')
        meta_graph = tf.train.export_meta_graph(graph=graph)
    meta_graph.collection_def['train_op'].node_list.value.extend(names)  # What it has to keep.
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.extend(['constfold', 'dependency'])
    folded = tf_optimizer.OptimizeGraph(config, meta_graph)
    whole = tf.GraphDef(versions=folded.versions, library=folded.library)
    whole.node.extend(node for node in folded.node if node.name not in kept)
    whole.node.extend(nodes[name] for name in sorted(kept))
    return TransformGraph(whole, [], names, ['merge_duplicate_nodes'])


def _serving_api() -> Any:
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise UserError(
            '--warmup needs the package tensorflow-serving-api: '
            'pip install tensorflow-serving-api==1.14.0'
        ) from error
    return prediction_log_pb2


def _write_warmup(path: str, examples: Dict[str, Golden]) -> None:
    """Writes one request for each signature, as a TFRecord of `PredictionLog`."""
    messages = _serving_api()
    with tf.python_io.TFRecordWriter(path) as writer:
        for signature, example in sorted(examples.items()):
            log = messages.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in example.inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def export_saved_model(
    kind: str,
    checkpoint_path: str,
    params: HParams,
    options: Options = ALL_SIGNATURES,
    evaluation: Optional[Dict[str, Any]] = None,
    validation: Optional[ValidationImages] = None,
) -> str:
    """Writes a SavedModel to `export/<kind>/<timestamp>`; returns that folder.

    It is written under a name that TensorFlow Serving ignores, and then renamed: on local disks a
    reader never sees half of it. (gs:// has no folders to rename: there the files appear one by
    one, as with Estimator's own exports.)

    Args and Raises: see `write`.
    """
    parent = os.path.join(params.model_dir, 'export', kind)
    temporary = os.path.join(parent, 'temp-' + files.temporary_name())
    try:
        write(temporary, checkpoint_path, params, options, evaluation, validation)
        # Seconds, as Estimator's exporters have it, but of two exports in a second one counts on.
        timestamp = max([int(time.time())] + [number + 1 for number in exports.timestamps(parent)])
        target = os.path.join(parent, str(timestamp))
        tf.gfile.Rename(temporary, target)
    finally:
        if tf.gfile.Exists(temporary):
            tf.gfile.DeleteRecursively(temporary)
    return target
