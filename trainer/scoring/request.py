"""What is asked of `trainer.predict`, and which flags do not go together."""

from typing import NamedTuple

from trainer.base import files
from trainer.base.errors import UserError
from trainer.serving import thresholds


class Request(NamedTuple):
    """What is wanted: the flags of `trainer.predict`, which documents them; empty if not given."""

    images: str = ''
    source: str = ''
    export_dir: str = ''
    url: str = ''
    model_dir: str = ''
    checkpoint: str = ''
    data_dir: str = ''
    samples: int = 0
    threshold: str = ''
    output: str = ''
    explain: bool = False
    latents: str = ''


def check(request: Request) -> None:
    """Refuses flags that do not go together, or name what cannot be written."""
    if bool(request.images) == bool(request.source):
        raise UserError('either --images or --source says which images; give one of them.')
    if [bool(request.export_dir), bool(request.url), bool(request.model_dir)].count(True) != 1:
        raise UserError(
            '--export_dir, --url or, for --samples, --model_dir says where the model is; give one '
            'of them.'
        )
    if bool(request.samples) != bool(request.model_dir):
        raise UserError(
            '--samples and --model_dir go together, as an export gives no samples: give both, or '
            '--export_dir or --url alone.'
        )
    if (request.checkpoint or request.data_dir) and not request.model_dir:
        raise UserError('--checkpoint and --data_dir are of a --model_dir: leave them away.')
    if request.samples and (request.explain or request.latents):
        raise UserError('--explain and --latents do not go with --samples: leave that away.')
    if request.explain and not request.output:
        raise UserError('--explain needs --output=FOLDER for its pictures.')
    if request.latents and not request.latents.endswith(('.npz', '.csv')):
        raise UserError(f'--latents={request.latents} must end in .npz or .csv.')
    if request.threshold:
        thresholds.parsed(request.threshold)
    if request.output:
        files.check_folder('--output', request.output)
    if request.latents:
        files.check_output('--latents', request.latents)
