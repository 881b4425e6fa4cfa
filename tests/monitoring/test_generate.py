"""What `trainer.generate` refuses before anything is drawn."""

import pytest

from trainer import generate
from trainer.base.errors import UserError


class Values:
    """What the flags say; there is no model, so that what comes later fails otherwise."""

    mode, model_dir, data_dir = 'prior', '/nowhere', ''

    def __init__(self, output, animate):
        self.output, self.animate = output, animate


@pytest.mark.parametrize(
    ('output', 'animate', 'message'),
    [
        ('x.jpg', False, 'the picture is a PNG file: give a name that ends in .png'),
        ('more/x.y.GIF', False, 'the picture is a PNG file'),
        ('x.pdf', False, 'the picture is a PNG file'),
        ('x.png', True, 'the picture is a GIF file: give a name that ends in .gif'),
        ('x.PNG', False, '--model_dir=/nowhere'),
        ('more.d/x', False, '--model_dir=/nowhere'),
        ('x.gif', True, '--model_dir=/nowhere'),
        (None, True, '--model_dir=/nowhere'),
    ],
)
def test_a_name_of_another_kind_of_file_is_refused(monkeypatch, output, animate, message):
    monkeypatch.setattr(generate.flags, 'FLAGS', Values(output, animate))
    with pytest.raises(UserError) as error:
        generate.main([])
    assert message in str(error.value)
