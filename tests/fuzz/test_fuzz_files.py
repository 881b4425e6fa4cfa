"""Every file that the trainer reads, damaged at random: taken as it is, or refused by name."""

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import zlib
from unittest import mock

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from scripts.servers import predict_protocol
from tests.checkpoints import test_checkpoints
from tests.support import datasets, serving_models
from tests.support.fuzzing import examples
from trainer.base import files, image_files
from trainer.base.errors import UserError
from trainer.checkpoints import best_model, listing, weights
from trainer.cluster import tf_config
from trainer.cluster.tf_config import LOCAL
from trainer.data import (
    catalog,
    dataset_folder,
    decoded_copy,
    file_search,
    labels,
    new_images,
    prepare,
    sources,
)
from trainer.data.dataset_folder import DatasetFolder
from trainer.data.tfds_records import TfdsRecords
from trainer.evaluation.partial_results import PartialResults
from trainer.monitoring import animation, curves
from trainer.monitoring.curves import Curve
from trainer.serving import client, verify_export
from trainer.serving.client import Export
from trainer.settings import rules, storage
from trainer.settings import table as settings_table
from trainer.settings.table import HParams
from trainer.training import early_stopping, results

# What protobuf says of damaged messages besides.
pytestmark = pytest.mark.filterwarnings('ignore:Unexpected end-group tag:RuntimeWarning')


def damaged(content):
    """`content` cut, emptied, with bits flipped, with a part left out or doubled, or replaced."""
    size = len(content)
    place = strategies.integers(0, max(size - 1, 0))

    def flipped(bits):
        changed = bytearray(content)
        for at, bit in bits:
            changed[at] ^= 1 << bit
        return bytes(changed)

    flips = strategies.lists(
        strategies.tuples(place, strategies.integers(0, 7)), min_size=1, max_size=8
    )
    return strategies.one_of(
        place.map(lambda end: content[:end]),
        flips.map(flipped),
        strategies.tuples(place, place).map(lambda at: content[: at[0]] + content[at[1] :]),
        strategies.binary(max_size=200),
        strategies.binary(min_size=1, max_size=50).map(lambda end: content + end),
    )


LEAVES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.floats(),
    strategies.text(max_size=8),
    strategies.sampled_from([10**400, 28.0, -1, 0, 'a\nb', '\0', '\ud800', '1', 1e308]),
)
JSON = strategies.recursive(
    LEAVES,
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=4),
        strategies.dictionaries(strategies.text(max_size=6), inner, max_size=4),
    ),
    max_leaves=8,
)
DEEP = b'[' * 100000


def one_of_its_values(table):
    """The JSON object `table` with one entry replaced by any value, dropped, or added."""

    def changed(change):
        key, value, how = change
        rest = {name: old for name, old in table.items() if name != key}
        return rest if how == 'dropped' else dict(rest, **{key + 'x' * (how == 'added'): value})

    return strategies.tuples(
        strategies.sampled_from(sorted(table)),
        JSON,
        strategies.sampled_from(['replaced', 'replaced', 'dropped', 'added']),
    ).map(changed)


def encoded(value):
    return json.dumps(value).encode('utf-8')


def is_one_sentence(error, *parts):
    message = str(error)
    return '\n' not in message and len(message) > 20 and all(part in message for part in parts)


def write(path, content):
    with open(str(path), 'wb') as f:
        f.write(content)


# JSON.


@examples(150)
@hypothesis.given(strategies.one_of(damaged(b'{"a": [1, 2.5, "text"]}'), strategies.just(DEEP)))
def test_json_is_read_as_python_does_or_its_file_is_named(tmp_path_factory, content):
    path = str(tmp_path_factory.getbasetemp() / 'some.json')
    write(path, content)
    try:
        value = files.read_json(path)
    except UserError as error:
        assert is_one_sentence(error, path)
        if content.strip() != b'null':
            with pytest.raises((ValueError, RecursionError)):
                json.loads(content.decode('utf-8'))
    else:
        assert repr(value) == repr(json.loads(content.decode('utf-8')))


SETTINGS = dict(dataclasses.asdict(HParams()), model_dir='runs/one', image_shape=[28, 28, 1])


@examples(400)
@hypothesis.given(
    strategies.one_of(
        one_of_its_values(SETTINGS).map(encoded),
        damaged(encoded(SETTINGS)),
        JSON.map(encoded),
        strategies.just(DEEP),
    )
)
def test_recorded_settings_could_have_been_given_as_flags(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    write(folder / storage.FILE_NAME, content)
    try:
        params = storage.load(str(folder))
    except UserError as error:
        assert is_one_sentence(error, str(folder / storage.FILE_NAME))
        assert content != encoded(SETTINGS)
        return
    for row in settings_table.settings():
        value, allowed = getattr(params, row.name), row.metadata['range']
        if allowed is None:
            assert isinstance(value, str) and '\0' not in value and '\n' not in value
            assert value in (row.metadata['choices'] or [value])
        else:
            assert isinstance(value, (int, type(row.default))) and not isinstance(value, bool)
            assert allowed.low <= value <= allowed.high
    assert len(params.image_shape) == 3 and min(params.image_shape) >= 1
    rules.check_consistent(params)


@pytest.mark.parametrize(
    'changes',
    [
        {'objective': 'iwae'},
        {'free_bits': 1.0, 'free_bits_groups': 5},
        {'beta_cycles': 6000},
        {'likelihood': 'normal', 'binarization': 'static'},
        {'latent_size': 10**12},
        {'image_shape': [28, 28, 10**9]},
    ],
)
def test_recorded_settings_that_make_no_sense_are_refused(tmp_path, changes):
    write(tmp_path / storage.FILE_NAME, encoded(dict(SETTINGS, **changes)))
    with pytest.raises(UserError) as error:
        storage.load(str(tmp_path))
    assert is_one_sentence(error.value, str(tmp_path / storage.FILE_NAME), sorted(changes)[0])


def test_undamaged_settings_are_read(tmp_path):
    write(tmp_path / storage.FILE_NAME, encoded(SETTINGS))
    assert storage.load(str(tmp_path)) == HParams(model_dir='runs/one')


BEST = {
    'negative_elbo': 99.5,
    'global_step': 3,
    'checkpoint': 'model.ckpt-3',
    'export': '1',
    'evaluated_step': 5,
    'evaluations_since_best': 4,
    'stopped_step': 5,
    'best_with_whole_beta': {'negative_elbo': 99.5, 'global_step': 3},
}
TIMES = {
    'first_step': 0,
    'training_seconds': 61.0,
    'training_time_share': 0.9,
    'wall_seconds': 70.0,
    'cpu_seconds': 130.0,
}


@examples(150)
@hypothesis.given(strategies.one_of(one_of_its_values(TIMES), JSON).map(encoded))
def test_times_of_an_earlier_run_can_be_shown_or_are_left_out(tmp_path_factory, content):
    path = str(tmp_path_factory.getbasetemp() / 'results.json')
    write(path, content)
    times = results._times_before(path, list(TIMES))
    terms = {'negative_elbo': 3.0, 'reconstruction_loss': 2.0, 'kl_divergence': 1.0}
    record = dict(
        {name: times.get(name) for name in TIMES},
        **dict.fromkeys(('train', 'validation', 'test'), terms),
        images_evaluated={'train': 1},
        images_in_split={'train': 1},
        convention='',
        log_likelihood='',
        global_step=1,
    )
    results.show(record, {})
    known = json.loads(content.decode('utf-8'))
    whole = isinstance(known, dict) and set(TIMES) <= set(known)
    assert times == {} or (whole and times == {name: known[name] for name in TIMES})


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -1, 10**400, True, '1', None, []])
@pytest.mark.parametrize('name', sorted(TIMES))
def test_times_with_one_that_is_none_are_left_out(tmp_path, name, value):
    write(tmp_path / 'results.json', encoded(dict(TIMES, **{name: value})))
    assert results._times_before(str(tmp_path / 'results.json'), list(TIMES)) == {}


def test_whole_times_are_kept(tmp_path):
    write(tmp_path / 'results.json', encoded(dict(TIMES, other=1)))
    assert results._times_before(str(tmp_path / 'results.json'), list(TIMES)) == TIMES


# What a dataset consists of.


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """A small decoded copy of numbered images, and what it is a copy of."""
    parent = tmp_path_factory.mktemp('copy')
    folder = parent / 'numbered' / '1.0.0-decoded'
    folder.mkdir(parents=True)
    data = dataclasses.replace(datasets.write_prepared(folder), folder=str(folder))
    source = DatasetFolder('numbered', 'numbered', '1.0.0', str(parent), (8, 8, 1), {})
    facts = {
        'format': 1,
        'name': data.name,
        'version': data.version,
        'image_shape': [8, 8, 1],
        'num_examples': data.num_examples,
        'sha256': {split: files.sha256(path) for split, path in data.files.items()},
    }
    return source, data, facts


FACTS = {
    'format': 1,
    'name': 'numbered',
    'version': '1.0.0',
    'image_shape': [8, 8, 1],
    'num_examples': {'train': 110, 'validation': 10, 'test': 20},
    'sha256': {'train': '', 'validation': '', 'test': ''},
}


@examples(300)
@hypothesis.given(
    strategies.one_of(
        one_of_its_values(FACTS),
        strategies.sampled_from(
            [
                {'image_shape': shape}
                for shape in ([8.0, 8, 1], [4, 16, 1], [-8, -8, 1], [64, 1, 1], [8, 8, True], 'abc')
            ]
            + [{'num_examples': {'train': 110.0, 'validation': 10, 'test': 20}}]
            + [{'name': 'mnist'}, {'version': '2.0.0'}]
        ),
        JSON,
    ),
    strategies.booleans(),
)
def test_a_sidecar_says_what_was_decoded_or_is_refused(copy, changed, is_whole):
    source, data, facts = copy
    if isinstance(changed, dict):
        changed = {k: facts['sha256'] if v == FACTS['sha256'] else v for k, v in changed.items()}
        changed = dict(facts if is_whole else {}, **changed)
    write(os.path.join(source.decoded, decoded_copy.SIDECAR), encoded(changed))
    prepared, reason = decoded_copy.load(source.decoded, TfdsRecords(source).facts())
    assert prepared == data if prepared is not None else is_one_sentence('sidecar: ' + reason)
    if prepared is not None:
        assert [type(side) for side in prepared.image_shape] == [int] * 3
        assert {type(count) for count in prepared.num_examples.values()} == {int}


@examples(150)
@hypothesis.given(strategies.data())
def test_damage_of_a_decoded_copy_is_noticed(copy, data):
    source, prepared, facts = copy
    sidecar = os.path.join(source.decoded, decoded_copy.SIDECAR)
    write(sidecar, encoded(facts))
    assert decoded_copy.load(source.decoded, TfdsRecords(source).facts()) == (prepared, '')
    path = data.draw(strategies.sampled_from([sidecar] + sorted(prepared.files.values())))
    with open(path, 'rb') as f:
        before = f.read()
    content = data.draw(damaged(before))
    try:
        write(path, content)
        found, reason = decoded_copy.load(source.decoded, TfdsRecords(source).facts())
        if found is None:
            assert reason and content != before
        else:
            assert found == prepared and (path == sidecar or content == before)
    finally:
        write(path, before)


PIXELS = datasets.numbered_images(30, (28, 28)).tobytes()
IDX = struct.pack('>IIII', 2051, 30, 28, 28) + PIXELS
ZIPPED = gzip.compress(IDX)
ROW = dataclasses.replace(
    catalog.FILE_DATASETS['mnist'],
    sizes={'images': len(IDX)},
    sha256={'images': hashlib.sha256(IDX).hexdigest()},
)


@examples(250)
@hypothesis.given(strategies.one_of(damaged(IDX), damaged(ZIPPED)))
def test_idx_files_are_those_known_or_refused(tmp_path_factory, content):
    path = str(tmp_path_factory.getbasetemp() / 'known' / 'images')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, content)
    with mock.patch.dict(catalog.FILE_DATASETS, mnist=ROW):
        try:
            sources.check_folder('mnist', os.path.dirname(path))
            assert file_search.read(path, 'mnist', 'images') == (IDX, '')
        except UserError as error:
            assert is_one_sentence(error, path, '--idx_dir')
            assert content not in (IDX, ZIPPED)


def test_a_zipped_file_is_not_unpacked_beyond_what_any_known_one_has(tmp_path, monkeypatch):
    write(tmp_path / 'images', gzip.compress(bytes(1 << 24)))
    monkeypatch.setitem(catalog.FILE_DATASETS, 'mnist', ROW)
    monkeypatch.setattr(file_search, '_MOST_BYTES', 1000)
    with mock.patch.object(
        file_search.hashlib, 'sha256', wraps=hashlib.sha256
    ) as digest, pytest.raises(UserError) as error:
        sources.check_folder('mnist', str(tmp_path))
    assert is_one_sentence(error.value, str(tmp_path / 'images'), 'more than 999 bytes')
    assert max(len(call[0][0]) for call in digest.call_args_list) == 1000


def test_whole_idx_files_are_taken(tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.FILE_DATASETS, 'mnist', ROW)
    for content in (IDX, gzip.compress(IDX), gzip.compress(IDX[:99]) + gzip.compress(IDX[99:])):
        write(tmp_path / 'images', content)
        sources.check_folder('mnist', str(tmp_path))
        assert file_search.read(str(tmp_path / 'images'), 'mnist', 'images') == (IDX, '')


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    """The folder of a small dataset's TFRecords."""
    data_dir = str(tmp_path_factory.mktemp('data'))
    prepare.prepare('colour_squares', data_dir)
    return dataset_folder.find('colour_squares', data_dir)


@examples(8)
@hypothesis.given(strategies.data())
def test_damaged_records_are_named(records, tmp_path_factory, data):
    (name,) = [name for name in os.listdir(records.records) if '-test.tfrecord' in name]
    path = os.path.join(records.records, name)
    with open(path, 'rb') as f:
        before = f.read()
    content = data.draw(damaged(before))
    target = str(tmp_path_factory.getbasetemp() / 'decoded')
    shutil.rmtree(target, ignore_errors=True)
    try:
        write(path, content)
        with pytest.raises(UserError) as error:
            decoded_copy.write(TfdsRecords(records), target)
            assert content.startswith(before)
            raise UserError('nothing wrong with {}'.format(records.records))
        assert is_one_sentence(error.value, records.records)
        whole = content.startswith(before)
        assert whole or not os.path.exists(os.path.join(target, decoded_copy.SIDECAR))
    finally:
        write(path, before)


def test_labels_of_damaged_records_are_left_out(records):
    """They are of the last act of a run, which needs nothing else of the records."""
    (name,) = [name for name in os.listdir(records.records) if '-train.tfrecord' in name]
    path = os.path.join(records.records, name)
    with open(path, 'rb') as f:
        before = f.read()
    prepared = mock.Mock(num_examples={'train': 44}, digest='')
    params = HParams(dataset='colour_squares', data_dir=records.data_dir)
    assert len(labels.labels(prepared, params, 4)) == 4
    try:
        for content in (before[:-40], before[:2000] + b'?' + before[2001:], b''):
            write(path, content)
            assert labels.labels(prepared, params, 4) is None
    finally:
        write(path, before)


def test_a_folder_s_name_is_no_pattern(tmp_path):
    prepared = prepare.prepare('colour_squares', str(tmp_path / '[a]*?'))
    assert prepared.num_examples == {'train': 44, 'validation': 4, 'test': 48}


@examples(120)
@hypothesis.given(strategies.data())
def test_damaged_books_of_tfds_are_refused_or_as_good(records, data):
    path = os.path.join(records.records, 'dataset_info.json')
    with open(path, 'rb') as f:
        before = f.read()
    table = one_of_its_values(json.loads(before.decode('utf-8'))).map(encoded)
    content = data.draw(
        strategies.one_of(table, damaged(before), JSON.map(encoded), strategies.just(DEEP))
    )
    try:
        write(path, content)
        facts = prepare.dataset_facts('colour_squares', records.data_dir)
        assert facts.image_shape == (32, 32, 3)
        counts = facts.num_examples or {'train': 1}
        assert all(isinstance(count, int) and count >= 0 for count in counts.values())
    except UserError as error:
        assert is_one_sentence(error, 'colour_squares')
        assert content != before
    finally:
        write(path, before)


# TF_CONFIG.

CLUSTER = {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1'], 'evaluator': ['e:1']}
TF_CONFIG = {'cluster': CLUSTER, 'task': {'type': 'worker', 'index': 1}}


HOSTS = strategies.sampled_from(
    [
        'a:1',
        '[::1]:2222',
        'a-b.c_d:65535',
        'a',
        'a:',
        ':1',
        'a:b',
        'a/b:1',
        'a:0',
        'a:65536',
        'a b:1',
    ]
)


def changed_within(name):
    return one_of_its_values(TF_CONFIG[name]).map(lambda value: dict(TF_CONFIG, **{name: value}))


@examples(300)
@hypothesis.given(
    strategies.one_of(
        one_of_its_values(TF_CONFIG).map(json.dumps),
        changed_within('cluster').map(json.dumps),
        changed_within('task').map(json.dumps),
        strategies.lists(strategies.one_of(LEAVES, HOSTS), max_size=3).map(
            lambda hosts: json.dumps(dict(TF_CONFIG, cluster=dict(CLUSTER, ps=hosts)))
        ),
        damaged(encoded(TF_CONFIG)).map(lambda content: content.decode('utf-8', 'surrogateescape')),
        strategies.just(DEEP.decode('ascii')),
    )
)
def test_a_task_is_one_that_tensorflow_takes_or_is_refused(text):
    try:
        task = tf_config.join({'TF_CONFIG': text})
    except UserError as error:
        assert is_one_sentence(error, 'TF_CONFIG')
        return
    if task == LOCAL:
        return
    hosts = sum(json.loads(task.tf_config)['cluster'].values(), [])
    for name, _, port in [host.rpartition(':') for host in hosts]:
        assert name and name.isprintable() and '/' not in name and ' ' not in name
        assert port.isdigit() and 1 <= int(port) <= 65535
    with tf_config.environment(task):
        config = tf.estimator.RunConfig(model_dir='x')
    assert (config.task_type, config.task_id) == (task.type, task.index)


@pytest.mark.parametrize(
    'hosts, index',
    [([host], 0) for host in ('a', 'a:', ':1', 'a:b', 'a/b:1', 'a:0', 'a:65536', 'a b:1', 'é:1')]
    + [([7], 0), ([None], 0), (['a:1'], float('inf')), (['a:1'], 10**400), (['a:1'], 'x')],
)
def test_a_task_without_a_place_is_refused(hosts, index):
    config = {'cluster': dict(CLUSTER, ps=hosts), 'task': {'type': 'ps', 'index': index}}
    with pytest.raises(UserError) as error:
        tf_config.join({'TF_CONFIG': json.dumps(config)})
    assert is_one_sentence(error.value, 'TF_CONFIG')


# What a run leaves.


ROW_TYPE = np.dtype(
    [('importance_weighted_bound', np.float64), ('posterior_mean', np.float32, (2,))]
)


@examples(150)
@hypothesis.given(strategies.data())
def test_what_is_known_so_far_is_taken_whole_or_not_at_all(tmp_path_factory, data):
    path = str(tmp_path_factory.getbasetemp() / 'results.json.partial')
    partial = PartialResults(path, {'seed': 1}, ROW_TYPE)
    rows = np.arange(15, dtype=np.float64)[:, np.newaxis].repeat(1, axis=1).ravel().astype(ROW_TYPE)
    partial.save(rows, 12.5)
    with open(path, 'rb') as f:
        whole = f.read()
    content = data.draw(damaged(whole))
    write(path, content)
    found, seconds = partial.load()
    assert found.dtype == ROW_TYPE
    if content == whole:
        np.testing.assert_array_equal(found, rows)
    else:
        assert len(found) == 0 and seconds == 0.0


def events(values):
    content = io.BytesIO()
    for step, value in values:
        summary = tf.Summary(value=[tf.Summary.Value(tag='elbo/negative_elbo', simple_value=value)])
        content.write(record(tf.Event(step=step, summary=summary).SerializeToString()))
    return content.getvalue()


def record(content):
    """One TFRecord, as its documentation has it: length, data, and a masked CRC-32C of each."""
    length = struct.pack('<Q', len(content))
    return length + masked(length) + content + masked(content)


def masked(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


EVENTS = events([(1, 300.0), (2, 200.0), (3, 100.0)])


STATE = (
    b'model_checkpoint_path: "model.ckpt-9"\nall_model_checkpoint_paths: "model.ckpt-6"\n'
    b'all_model_checkpoint_paths: "model.ckpt-9"\n'
)
NAMES = strategies.one_of(strategies.text(max_size=12), strategies.sampled_from(
    ['', '/', '..', '*', 'foo://x', '\0', 'model.ckpt-6', 'model.ckpt-*', 'x' * 5000]
))  # fmt: skip


def state_of(names):
    last, others = names
    return str(CheckpointState(model_checkpoint_path=last, all_model_checkpoint_paths=others))


@examples(300)
@hypothesis.given(
    strategies.one_of(
        damaged(STATE),
        strategies.tuples(NAMES, strategies.lists(NAMES, max_size=3)).map(state_of).map(str.encode),
    )
)
def test_any_state_file_leads_to_a_whole_checkpoint(checkpoints_folder, content):
    whole = {os.path.join(checkpoints_folder, 'model.ckpt-{}'.format(step)) for step in (6, 9)}
    write(os.path.join(checkpoints_folder, 'checkpoint'), content)
    listing.latest(checkpoints_folder)
    listing.repair(checkpoints_folder)
    path = listing.latest(checkpoints_folder)
    assert os.path.normpath(path) in whole
    assert weights.damage(path) == ''


@examples(200)
@hypothesis.given(strategies.data())
def test_any_damage_of_a_checkpoint_is_found_or_harmless(checkpoints_folder, data):
    suffix = data.draw(strategies.sampled_from(['.index', '.data-00000-of-00001']))
    path = os.path.join(checkpoints_folder, 'model.ckpt-9')
    with open(path + suffix, 'rb') as f:
        before = f.read()
    try:
        write(path + suffix, data.draw(damaged(before)))
        if not weights.damage(path):
            reader = tf.train.load_checkpoint(path)
            assert reader.get_tensor('global_step') == 9
            assert (reader.get_tensor('weight') == 9.0).all()
    finally:
        write(path + suffix, before)


@pytest.fixture(scope='module')
def checkpoints_folder(tmp_path_factory):
    """A folder of two small checkpoints."""
    folder = str(tmp_path_factory.mktemp('checkpoints'))
    test_checkpoints.write_checkpoints(folder, [6, 9])
    return folder


@examples(200)
@hypothesis.given(strategies.one_of(one_of_its_values(BEST), JSON).map(encoded))
def test_a_state_of_the_best_export_is_right_or_set_aside(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / 'best'
    path = folder / 'export' / 'best' / 'best.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, content)
    params = HParams(model_dir=str(folder), early_stopping_patience=3)
    best_model.repair_state(params)
    early_stopping.patience_ran_out(params)
    best_model.read_best(str(folder))
    if path.exists():
        state = json.loads(content.decode('utf-8'))
        kept = {name: state[name] for name in BEST if name in state}
        assert all(type(value) in (int, float, str, bool, dict) for value in kept.values())


@examples(200)
@hypothesis.given(strategies.one_of(damaged(EVENTS), strategies.binary(max_size=60).map(record)))
def test_event_files_are_read_as_far_as_they_can_be(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / 'events'
    folder.mkdir(exist_ok=True)
    write(folder / 'events.out.tfevents.1.x', content)
    (curve,) = curves.read_curves(str(folder), ['elbo/negative_elbo']).values()
    known = {1: 300.0, 2: 200.0, 3: 100.0}
    assert dict(zip(curve.steps, curve.values)).items() <= known.items()
    if content.startswith(EVENTS):
        assert curve == Curve([1, 2, 3], [300.0, 200.0, 100.0])


@pytest.mark.parametrize('values', [[np.nan], [np.inf, 1.0], [3e38, -3e38], [1.0, -np.inf, np.nan]])
def test_curves_of_any_numbers_are_drawn(tmp_path, values):
    steps = [0, 2**63 - 1, -(2**63), 5]
    write(tmp_path / 'events.out.tfevents.1.x', events(zip(steps, values)))
    (tmp_path / 'events.out.tfevents.2.folder').mkdir()
    path = curves.write_training_curves(str(tmp_path / 'c.png'), str(tmp_path), 'grey levels')
    with open(path, 'rb') as f:
        assert f.read(4) == b'\x89PNG'


# Images.


def png(rows, columns, content=b''):
    """A PNG file of grey levels by its specification."""
    header = struct.pack('>IIBBBBB', columns, rows, 8, 0, 0, 0, 0)
    chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(content)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return serving_models.write_export(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def loaded(model):
    return Export(model[0])


GREY = np.random.RandomState(0).randint(0, 256, serving_models.GREY[:2]).astype(np.uint8)
# Each row begins with its filter: none.
WHOLE = png(8, 12, b''.join(b'\0' + row.tobytes() for row in GREY))


@examples(250)
@hypothesis.given(damaged(WHOLE))
def test_images_are_scored_or_named(loaded, tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    paths = [str(folder / 'good.png'), str(folder / 'other.png')]
    write(paths[0], WHOLE)
    write(paths[1], content)
    images = new_images.Files('--images', paths, paths)
    good, other = client.answers_to(
        list(images), client.asking(loaded.predict, ['reconstruct_png'])
    )
    assert good.outputs['reconstruction'].shape == (8, 12)
    if other.error:
        assert is_one_sentence(other.error, paths[1]) and content != WHOLE
        return
    assert all(np.all(np.isfinite(value)) for value in other.outputs.values())
    if content == WHOLE or content.startswith(WHOLE):
        for name, value in good.outputs.items():
            np.testing.assert_allclose(value, other.outputs[name], atol=1e-5)


JPEG_HEAD = b'\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08'


@pytest.mark.parametrize(
    'content',
    [
        png(100000, 100000),
        png(1, 2**31 - 1),
        png(8193, 12),
        JPEG_HEAD + struct.pack('>HH', 65535, 65535) + b'\x01\x01\x11\0',
        b'GIF89a' + struct.pack('<HH', 65535, 65535) + b'\0\0\0',
    ],
)
def test_images_that_claim_to_be_huge_are_refused_before_they_are_decoded(tmp_path, content):
    path = str(tmp_path / 'a.png')
    write(path, content)
    with pytest.raises(UserError) as error:
        image_files.read(path, '--images=' + path)
    assert is_one_sentence(error.value, path, 'pixels by its header')


def test_images_of_ordinary_size_are_read(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg = session.run(tf.image.encode_jpeg(np.zeros([20, 8192, 1], np.uint8)))
    for content in (WHOLE, jpeg, png(8192, 8192), b'', b'\x89PNG', b'\xff\xd8\xff', b'GIF8'):
        write(tmp_path / 'a.png', content)
        assert image_files.read(str(tmp_path / 'a.png'), 'a.png') == content
    assert image_files.claimed_size(jpeg) == (20, 8192)


@pytest.mark.parametrize('picture', [b'', b'\x89PNG\r\n\x1a\n', png(8, 12)[:60], png(50000, 50000)])
def test_a_broken_picture_in_an_event_file_is_refused(tmp_path, picture):
    folder = tmp_path / 'eval_validation'
    folder.mkdir()
    value = tf.Summary.Value(tag='pictures/prior_samples/image')
    value.image.encoded_image_string = picture
    event = tf.Event(step=1, summary=tf.Summary(value=[value]))
    write(folder / 'events.out.tfevents.1.x', record(event.SerializeToString()))
    with pytest.raises(UserError) as error:
        animation.animate(str(tmp_path / 'a.gif'), str(tmp_path), 'prior')
    assert is_one_sentence(error.value, str(tmp_path))
    assert not (tmp_path / 'a.gif').exists()


# Exports, servers and their requests.


@examples(6)
@hypothesis.given(strategies.data())
def test_a_damaged_export_is_refused(model, loaded, data):
    names = ['variables/variables.index', 'variables/variables.data-00000-of-00001']
    path = os.path.join(model[0], data.draw(strategies.sampled_from(names)))
    with open(path, 'rb') as f:
        before = f.read()
    content = data.draw(damaged(before))
    try:
        write(path, content)
        found = Export(model[0]).predict([WHOLE], 'reconstruct_png')
        for name, value in loaded.predict([WHOLE], 'reconstruct_png').items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)
    except UserError as error:
        assert is_one_sentence(error, '--export_dir=' + model[0]) and content != before
    finally:
        write(path, before)


@pytest.mark.parametrize('content', [b'', b'\0', b'text', b'\xff' * 100, None])
def test_a_broken_graph_is_refused(model, tmp_path, content):
    folder = str(tmp_path / 'export')
    shutil.copytree(model[0], folder)
    path = os.path.join(folder, 'saved_model.pb')
    if content is None:
        with open(path, 'rb') as f:
            content = f.read()[:-1000]
    write(path, content)
    with pytest.raises(UserError) as error:
        Export(folder)
    assert is_one_sentence(error.value, '--export_dir=' + folder)


@examples(100)
@hypothesis.given(strategies.data())
def test_damaged_golden_outputs_are_refused(model, tmp_path_factory, data):
    with open(os.path.join(model[0], 'assets.extra', 'golden.npz'), 'rb') as f:
        before = f.read()
    path = str(tmp_path_factory.getbasetemp() / 'golden.npz')
    content = data.draw(damaged(before))
    write(path, content)
    try:
        golden = verify_export.read('--golden', path, verify_export.read_golden)
        assert all(set(example) == {'inputs', 'outputs'} for example in golden.values())
    except SystemExit as error:
        assert is_one_sentence(error, '--golden=' + path) and content != before


@pytest.mark.parametrize(
    'arguments, word',
    [
        (['--signatures=nothing'], '--signatures'),
        (['--export_dir=/nowhere'], '--export_dir=/nowhere'),
        (['--golden=/nowhere'], '--golden=/nowhere'),
    ],
)
def test_verification_ends_with_one_sentence(model, arguments, word):
    given = [
        '--golden=' + os.path.join(model[0], 'assets.extra', 'golden.npz'),
        '--export_dir=' + model[0],
        '--runtime=tensorflow1',
    ]
    with mock.patch('sys.argv', ['verify_export.py'] + given + arguments), pytest.raises(
        SystemExit
    ) as error:
        verify_export.main()
    assert is_one_sentence(error.value, word)


ANSWER = {
    'predictions': [
        {
            'negative_elbo': 3.0,
            'reconstruction_loss': 2.0,
            'kl_divergence': 1.0,
            'mean': [0.0],
            'scale': [1.0],
            'reconstruction': [[0.5, 0.5]],
        }
    ]
}


@examples(200)
@hypothesis.given(
    strategies.one_of(
        JSON.map(encoded),
        one_of_its_values(ANSWER).map(encoded),
        one_of_its_values(ANSWER['predictions'][0]).map(
            lambda row: encoded({'predictions': [row]})
        ),
        damaged(encoded(ANSWER)),
        strategies.just(DEEP),
    )
)
def test_any_answer_of_a_server_is_scores_or_is_refused(content):
    response = client.requests.Response()
    response.status_code, response._content = 200, content
    with mock.patch.object(client.requests, 'post', lambda *_, **__: response):
        try:
            outputs = client.predict_by_rest([b'x'], 'reconstruct_png', 'http://server')
        except UserError as error:
            assert is_one_sentence(error, '--url=http://server')
            assert content != encoded(ANSWER)
            return
    assert set(outputs) == set(ANSWER['predictions'][0])
    for name in ('negative_elbo', 'reconstruction_loss', 'kl_divergence'):
        assert outputs[name].shape[0] == 1


@examples(200)
@hypothesis.given(
    strategies.one_of(
        JSON,
        one_of_its_values({'instances': [{'images': [1]}]}),
        one_of_its_values({'inputs': {'images': {'b64': 'eA=='}}}),
        strategies.text(max_size=9).map(lambda text: {'instances': [{'b64': text}]}),
    )
)
def test_any_request_is_inputs_or_an_error_that_the_server_answers(request_):
    try:
        inputs, by_row = predict_protocol.inputs_of(request_, ['images'])
    except (ValueError, TypeError, AttributeError):
        return
    assert isinstance(inputs, dict) and by_row == ('instances' in request_)


def test_bytes_in_a_request_are_base64():
    content = bytes(range(256))
    text = base64.b64encode(content).decode('ascii')
    inputs, _ = predict_protocol.inputs_of({'instances': [{'b64': text}]}, ['image_bytes'])
    assert inputs == {'image_bytes': [content]}
