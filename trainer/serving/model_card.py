"""The model card of an export: what it is, what it takes, what its numbers mean."""

import json
from typing import Any, Dict, Mapping, Optional, Tuple

import tensorflow as tf

from trainer.checkpoints import best_model
from trainer.model import vae
from trainer.serving import thresholds
from trainer.settings import wording
from trainer.settings.table import LIKELIHOODS, PRIORS, HParams, paths


def model_card(
    signatures: Mapping[str, Any],
    checkpoint_path: str,
    params: HParams,
    evaluation: Optional[Dict[str, Any]],
    scored: Optional[thresholds.Scored] = None,
) -> str:
    """Writes the card.

    Args:
      signatures: those of the export by name, as `signatures.Signature`.
      evaluation: validation metrics, where they are known.
      scored: the validation images' scores, where they are known.
    """
    network = vae.description(params)
    metrics, name = '', best_model.selection_metric(params)
    if evaluation:
        metric = name.replace('_', ' ').replace('elbo', 'ELBO')
        metrics = (
            f'; validation {metric} {float(evaluation[name]):.2f} nats per example '
            f'({wording.data_convention(params)})'
        )
    reader = tf.train.load_checkpoint(checkpoint_path)
    step = reader.get_tensor(tf.GraphKeys.GLOBAL_STEP)
    settings = {name: getattr(params, name) for name in params.__dataclass_fields__}
    settings = {name: value for name, value in settings.items() if name not in paths()}
    return _CARD.format(
        dataset=params.data_name,
        shape=' x '.join(str(side) for side in params.image_shape),
        latent_size=params.latent_size,
        encoder=network['encoder'],
        decoder=network['decoder'],
        step=int(step),
        metrics=metrics,
        likelihood=params.likelihood.replace('_', ' ').title(),
        log_likelihood=wording.log_likelihood(params),
        kl_divergence='that of training, in closed form'
        if PRIORS[params.prior].has_closed_kl
        else 'the mean over a constant set of samples, in place of the random ones of training',
        what=_READINGS
        if params.is_series
        else _IMAGES.format(
            pixels=_BINARY if params.is_binarised else 'numbers in [0, 1]',
            files=_files(params),
            convention=wording.data_convention(params),
            outputs=LIKELIHOODS[params.likelihood].values,
        ),
        parts='readings' if params.is_series else 'pixels',
        noun='window' if params.is_series else 'image',
        table='\n'.join(_card_row(*item) for item in sorted(signatures.items())),
        thresholds=_thresholds(scored),
        settings=json.dumps(settings, indent=2, sort_keys=True, allow_nan=False),
    )


def _thresholds(scored: Optional[thresholds.Scored]) -> str:
    if scored is None:
        return 'This export was made without validation images: it has no thresholds.'
    table = scored.thresholds
    parts = [_thresholds_of(table), *([_thresholds_of(table['rows'])] if 'rows' in table else [])]
    return '\n'.join([*parts, _LIMITS])


def _thresholds_of(table: Dict[str, Any]) -> str:
    lines = [
        '| {quantile} | {} | {} |'.format(*_threshold_text(row), quantile=row['quantile'])
        for row in table['quantiles']
    ]
    return _THRESHOLDS.format(lines='\n'.join(lines), **table)


def _threshold_text(row: Dict[str, Any]) -> Tuple[str, str]:
    if row['nats'] is None:
        return '', row['reason']
    low, high = ('open' if end is None else f'{end:.2f}' for end in row['interval_95'])
    return f'{row["nats"]:.2f}', f'{low} to {high}'


def _files(params: HParams) -> str:
    """Says what becomes of image files, as of those of the training."""
    if not params.source_digest:
        return (
            'Transparent pixels are refused: put such images\n'
            '  on the background that the training images have.'
        )
    sizes = {
        'stretch': 'Their sides are stretched\n  to the size of the images.',
        'pad': 'They are resized and padded\n  with white.',
    }
    fit = sizes[params.fit] if params.image_size else ''
    return f'Transparent pixels are put on white. {fit}'.rstrip()


def _card_row(name: str, signature: Any) -> str:
    columns = [
        ', '.join(f'`{key}` {x.dtype.name} {_shape_text(x)}' for key, x in sorted(tensors.items()))
        for tensors in signature
    ]
    return '| `{}` | {} | {} |'.format(name, *columns)


def _shape_text(tensor: tf.Tensor) -> str:
    sizes = [] if tensor.shape.ndims is None else tensor.shape.as_list()
    return '[{}]'.format(', '.join(str(size or 'n') for size in sizes))


_THRESHOLDS = """\
Of {images:,} of the {images_in_split:,} validation {example}s, scored by these weights. A quantile
is the number of them that score below, over {images:,} + 1; one minus it is the conformal p-value.
A score above a threshold has its quantile or more. They are as uncertain as those of
{independent:,} independent scores.

| quantile | {score}, {units} | with 95% confidence |
|---|---|---|
{lines}
"""
_IMAGES = """\
* Data: {convention}; pixels are {pixels}; images come out as {outputs}. `n` is free.
* Image files are PNG or JPEG. {files}
  A photograph's EXIF orientation is not read: rotate its pixels."""
_READINGS = """\
* `windows` are finite readings in the units of the CSV files, columns in the order of `scaling`
  below; so is all that comes out. `n` is free. The scaling is part of the model: nats are of
  standardised readings, each less the mean of its column, over its deviation."""
_LIMITS = 'They say how rare a score is among such data, not how well it finds what you look for.'
_BINARY = '0 or 1, other values are refused (in image files, levels of 128 and more are 1)'
_CARD = """\
# Variational autoencoder of {dataset}

{latent_size} latents, {likelihood} {parts}; {noun}s of {shape} (rows, columns, channels). Weights \
of global step {step}{metrics}.

Encoder: {encoder}. Decoder: {decoder}.

| signature | inputs | outputs |
|---|---|---|
{table}

{what}
* log p(x), of which minus the `negative_elbo` is a lower bound in expectation, is {log_likelihood}.
* Losses are in nats, summed over {parts} and latents. Nothing is sampled but by `generate`, whose
  draws depend on `seed` alone. `kl_divergence` is {kl_divergence}; `reconstruction_loss` is the
  value at the posterior's mean, mostly less than the expectation over the posterior that training
  reports, and so is their sum `negative_elbo`, a score of how unusual the {noun} is.
* Bad input (a wrong shape, NaN, a number out of range) is an error in TensorFlow. Runtimes without
  assertions answer NaN for a bad example; check for it.
* The model knows {noun}s like those of its training. A low `negative_elbo` says that one is easy to
  encode, not that it is one of them: plain ones may score low too.

## Thresholds

{thresholds}

`python verify_export.py` here checks the outputs for `golden.npz`; `--help` says how in ONNX
Runtime and OpenVINO.

```json
{settings}
```
"""
