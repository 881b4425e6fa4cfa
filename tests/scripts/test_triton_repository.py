"""Triton's model repository of an export, and how its worker answers: no server runs here."""

import io
import os
import re
import socket
import subprocess

import numpy as np
import pytest

from scripts import ROOT
from scripts.servers import (
    exports,
    joining,
    triton_checks,
    triton_repository,
    triton_server,
    triton_worker,
)
from scripts.servers.triton_repository import Signature, Tensor

IMAGES = Tensor('float32', [-1, 28, 28])
COUNT = Tensor('int32', [])
SIGNATURES = {
    'encode': Signature({'images': IMAGES}, {'mean': Tensor('float32', [-1, 32])}),
    'generate': Signature({'count': COUNT, 'seed': COUNT}, {'images': IMAGES}),
    'interpolate': Signature(
        {'images': IMAGES, 'steps': Tensor('int32', None)},
        {'interpolations': Tensor('float32', [-1, -1, 28, 28])},
    ),
    'score_png': Signature(
        {'image_bytes': Tensor('string', [-1])}, {'quantile': Tensor('float32', [-1])}
    ),
}


@pytest.fixture
def repository(tmp_path):
    triton_repository.write(str(tmp_path / 'final' / '1795'), SIGNATURES, str(tmp_path / 'models'))
    return tmp_path / 'models'


def config(repository, name):
    return (repository / name / 'config.pbtxt').read_text()


def tensors(text, kind):
    """Returns type and dimensions by name."""
    pattern = kind + r' {\s*name: "(\S+)" data_type: (\w+) dims: \[ (.*?) \]'
    return {name: (dtype, dims) for name, dtype, dims in re.findall(pattern, text)}


def test_a_signature_is_a_model_that_needs_no_process(repository):
    assert sorted(os.listdir(str(repository))) == sorted([*SIGNATURES, 'vae'])
    assert os.listdir(str(repository / 'encode' / '1')) == []
    text = config(repository, 'encode')
    assert 'platform: "ensemble"' in text and 'model_name: "vae"' in text
    assert tensors(text, 'input') == {'images': ('TYPE_FP32', '28, 28')}
    assert tensors(text, 'output') == {'mean': ('TYPE_FP32', '32')}
    assert 'input_map { key: "encode/images" value: "images" }' in text
    assert 'output_map { key: "encode/mean" value: "mean" }' in text


def test_what_is_no_row_of_examples_is_not_batched(repository):
    sizes = {
        name: int(re.search(r'max_batch_size: (\d+)', config(repository, name)).group(1))
        for name in SIGNATURES
    }
    assert sizes['generate'] == sizes['interpolate'] == 0
    assert sizes['encode'] == sizes['score_png'] > 32
    assert 'string_value: "[\\"generate\\", \\"interpolate\\"]"' in config(repository, 'vae')
    generate = tensors(config(repository, 'generate'), 'input')
    assert generate == {'count': ('TYPE_INT32', '1'), 'seed': ('TYPE_INT32', '1')}
    interpolate = tensors(config(repository, 'interpolate'), 'input')
    assert interpolate == {'images': ('TYPE_FP32', '-1, 28, 28'), 'steps': ('TYPE_INT32', '1')}
    files = tensors(config(repository, 'score_png'), 'input')
    assert files == {'image_bytes': ('TYPE_STRING', '1')}


def test_one_worker_has_the_tensors_of_all_signatures(repository):
    text = config(repository, 'vae')
    names = {f'{name}/{key}' for name, signature in SIGNATURES.items() for key in signature.inputs}
    assert set(tensors(text, 'input')) == names and text.count('optional: true') == len(names)
    assert tensors(text, 'output')['interpolate/interpolations'] == ('TYPE_FP32', '-1, -1, 28, 28')
    assert 'dynamic_batching' in text
    model = (repository / 'vae' / '1795' / 'model.py').read_text()
    assert "export = '{}'".format(repository.parent / 'final' / '1795') in model
    assert (repository / 'vae' / '1795' / '__pycache__').is_dir()


@pytest.mark.parametrize(('processors', 'workers'), [({3}, 1), ({0, 1}, 2), (set(range(64)), 2)])
def test_a_second_worker_computes_while_the_first_ones_answers_go_out(
    processors, workers, monkeypatch
):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: processors)
    text = triton_repository.worker_config(SIGNATURES)
    assert f'instance_group {{ kind: KIND_CPU count: {workers} }}' in text


def test_large_examples_make_small_batches():
    def size_of(*shape):
        image = Tensor('float32', [-1, *shape])
        return triton_repository.batch_size({'reconstruct': Signature({'i': image}, {'o': image})})

    assert size_of(2, 2) == 1024
    # 456,192 bytes an image, in and out.
    assert size_of(216, 176, 3) == 24 * 2**20 // (2 * 456192)
    assert size_of(3000, 3000, 3) == 1


class Refused(Exception):
    pass


def doubled(inputs):
    doubled.calls += 1
    if (inputs['images'] < 0).any():
        raise Refused('negative')
    return {'mean': 2 * inputs['images']}


def test_a_bad_request_of_a_batch_fails_alone():
    sizes = [1, 2, 1, 3, 1, 1, 4, 1]
    values = np.split(np.arange(sum(sizes), dtype=np.float32), np.cumsum(sizes)[:-1])
    values[4] = -values[4]
    doubled.calls = 0
    results = joining.outcomes(doubled, [{'images': part} for part in values], Refused)
    assert isinstance(results[4], Refused)
    for number in set(range(8)) - {4}:
        np.testing.assert_array_equal(results[number]['mean'], 2 * values[number])
    assert doubled.calls == 7  # The whole, and two halves three times.
    doubled.calls = 0
    joining.outcomes(doubled, [{'images': part} for part in values[5:]], Refused)
    assert doubled.calls == 1


@pytest.mark.parametrize(
    'sizes, limit, number',
    [([1, 1, 1], 3, 3), ([1, 1, 1, 1], 3, 3), ([2, 2, 2], 3, 1), ([9, 1], 3, 1), ([1], 1, 1)],
)
def test_the_requests_beyond_a_number_of_examples_are_refused(sizes, limit, number):
    assert triton_worker.number_to_answer(sizes, limit) == number


def test_the_newest_whole_export_counts(tmp_path):
    assert exports.newest(str(tmp_path)) is None
    for name in ('9', '10', '11', 'temp-12'):
        (tmp_path / name).mkdir()
        if name != '11':
            (tmp_path / name / 'saved_model.pb').write_bytes(b'x')
    assert exports.newest(str(tmp_path)) == str(tmp_path / '10')
    assert exports.newest(str(tmp_path / '9')) == str(tmp_path / '9')
    before = exports.state_of(str(tmp_path / '10'))
    assert before == exports.state_of(str(tmp_path / '10'))
    (tmp_path / '10' / 'saved_model.pb').write_bytes(b'xy')
    assert before != exports.state_of(str(tmp_path / '10'))


def test_a_taken_port_is_named_with_its_variable():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f'port {port} .*VAE_GRPC_PORT'):
            triton_checks.free_address('127.0.0.1', port, 'VAE_GRPC_PORT')
    assert triton_checks.free_address('127.0.0.1', port, 'VAE_GRPC_PORT') == '127.0.0.1'


@pytest.mark.parametrize(
    ('program', 'prints', 'sentence'),
    [
        ('getconf', 'glibc 2.31', 'needs glibc 2.35 or later, and this is glibc 2.31: serve with'),
        ('getconf', 'musl', 'needs glibc 2.35 or later, and this is musl: serve with --kserve.'),
        ('uname', 'Linux aarch64', 'is for Linux on x86_64, and this is Linux aarch64: serve with'),
        ('uname', 'Darwin x86_64', 'is for Linux on x86_64, and this is Darwin x86_64: serve with'),
    ],
)
def test_a_machine_that_cannot_run_the_binary_is_told_so(program, prints, sentence, tmp_path):
    (tmp_path / 'final' / '1').mkdir(parents=True)
    (tmp_path / 'final' / '1' / 'saved_model.pb').write_bytes(b'')
    (tmp_path / program).write_text(f'#!/bin/sh\necho "{prints}"\n')
    (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        [os.path.join(ROOT, 'scripts', 'serve'), '--triton', str(tmp_path / 'final')],
        env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'VAE_TRITON_VENV': str(tmp_path / 'venv')},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'venv').exists()


def test_too_little_shared_memory_is_said(monkeypatch):
    class Small:
        f_bavail, f_frsize = 5, 1 << 20

    monkeypatch.setattr(os, 'statvfs', lambda path: Small)
    with pytest.raises(SystemExit, match='/dev/shm has 5 MiB free.*--shm-size'):
        triton_checks.check_machine()


def test_a_python_without_its_library_is_said(monkeypatch):
    def missing(path):
        raise OSError(path)

    monkeypatch.setattr(triton_checks.ctypes, 'CDLL', missing)
    with pytest.raises(SystemExit, match=r'has no libpython3\.7\.so\.1\.0.* install libpython3\.7'):
        triton_checks.python_libraries()


def test_what_the_server_says_of_missing_gpus_is_left_out():
    lines = ['E1126 "unable to create stream: CUDA driver"\n', '\n', 'E1126 failed to load vae\n']
    shown = io.StringIO()
    triton_server.copy_log(lines, shown)
    assert shown.getvalue() == lines[2]
