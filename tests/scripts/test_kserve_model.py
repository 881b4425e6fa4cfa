"""KServe's adapter: what it logs of bad requests, and which signatures it joins."""

import logging

import pytest

from scripts.servers import kserve_model


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
    ('inputs', 'outputs', 'expected'),
    [
        ({'images': [None, 28, 28]}, {'mean': [None, 2], 'score': [None]}, True),
        ({'image_bytes': [None]}, {'score': [None]}, True),
        ({'count': None, 'seed': None}, {'images': [None, 28, 28]}, False),
        ({'count': [], 'seed': []}, {'images': [None, 28, 28]}, False),
        ({'images': [None, 28, 28], 'steps': None}, {'films': [None, None, 28, 28]}, False),
        ({'images': [None, 28, 28]}, {'mean_of_all': []}, False),
        ({'images': [1, 28, 28]}, {'mean': [1, 2]}, False),
    ],
)
def test_signatures_of_rows_alone_are_joined(inputs, outputs, expected):
    assert kserve_model.is_of_rows(inputs, outputs) == expected


def test_the_newest_of_numbered_exports_is_served(tmp_path):
    for name in ('9', '10', 'temp-11'):
        (tmp_path / name).mkdir()
    assert kserve_model.newest(str(tmp_path)) == str(tmp_path / '10')
    (tmp_path / 'saved_model.pb').write_bytes(b'')
    assert kserve_model.newest(str(tmp_path)) == str(tmp_path)
