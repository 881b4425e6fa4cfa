"""KServe's adapter: what it logs, which signatures it joins, which export it serves."""

import logging
import shutil

import pytest

from scripts.servers import exports, kserve_model, saved_model


@pytest.fixture
def logger():
    logger = logging.getLogger('kserve')
    yield logger
    logger.filters.clear()


def test_a_refusal_is_logged_in_one_line_and_a_defect_with_its_traceback(logger, caplog):
    class Refused(Exception):
        pass

    kserve_model.log_refusals_in_a_line((Refused,))
    for error in (Refused('count must be a scalar'), KeyError('defect')):
        try:
            raise error
        except Exception as caught:
            logger.error('Exception:', exc_info=caught)
    logger.error('Other')
    refused, defect, other = [caplog.handler.format(record) for record in caplog.records]
    assert 'Refused: count must be a scalar' in refused and '\n' not in refused
    assert 'Traceback' in defect and "KeyError: 'defect'" in defect
    assert 'Other' in other


@pytest.mark.parametrize(
    ('shapes', 'expected'),
    [
        ([[None, 28, 28], [None, 2], [None]], True),
        ([None, None, [None, 28, 28]], False),  # generate: scalars
        ([[], [], [None, 28, 28]], False),
        ([[None, 28, 28], None, [None, None, 28, 28]], False),  # interpolate
        ([[None, 28, 28], []], False),
        ([[1, 28, 28], [1, 2]], False),
    ],
)
def test_signatures_of_rows_alone_are_joined(shapes, expected):
    assert saved_model.are_rows(shapes) == expected


def written(export_dir, size=3):
    export_dir.mkdir(parents=True, exist_ok=True)
    (export_dir / 'saved_model.pb').write_bytes(b'x' * size)
    return str(export_dir)


def test_the_newest_of_numbered_exports_is_served(tmp_path):
    assert exports.newest(str(tmp_path)) is None
    for name in ('9', '10', 'temp-11'):
        written(tmp_path / name)
    (tmp_path / '12').mkdir()  # Nothing is in it by now.
    assert exports.newest(str(tmp_path)) == str(tmp_path / '10')
    written(tmp_path)
    assert exports.newest(str(tmp_path)) == str(tmp_path)


def test_a_newer_export_is_told_of_once_when_nobody_writes_to_it_any_more(tmp_path):
    newer = exports.Newer(str(tmp_path), written(tmp_path / '1'))
    assert [newer.look() for _ in range(3)] == [None] * 3
    for size in range(3):
        written(tmp_path / '2', size)
        assert newer.look() is None
    assert [newer.look() for _ in range(3)] == [str(tmp_path / '2'), None, None]


def test_an_export_that_goes_on_growing_after_a_pause_is_told_of_again(tmp_path):
    newer = exports.Newer(str(tmp_path), written(tmp_path / '1'))
    written(tmp_path / '2')
    assert [newer.look() for _ in range(3)] == [None, str(tmp_path / '2'), None]
    (tmp_path / '2' / 'variables').mkdir()
    (tmp_path / '2' / 'variables' / 'variables.index').write_bytes(b'y')
    assert [newer.look() for _ in range(3)] == [None, str(tmp_path / '2'), None]


def test_the_older_one_is_told_of_when_the_newest_is_withdrawn_and_nothing_when_all_are(tmp_path):
    first = written(tmp_path / 'all' / '1')
    newer = exports.Newer(str(tmp_path / 'all'), written(tmp_path / 'all' / '2'))
    shutil.rmtree(str(tmp_path / 'all' / '2'))
    assert [newer.look() for _ in range(3)] == [None, first, None]
    shutil.rmtree(str(tmp_path / 'all'))
    assert [newer.look() for _ in range(3)] == [None] * 3
