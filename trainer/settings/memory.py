"""How many images a process holds or computes at once, so that memory bounds no size of image."""

from trainer.settings.table import PRIORS, HParams

# Images of an evaluation's batch; fewer where memory could not hold all their samples, or each
# sample's deviations from all components of a prior.
_EVALUATION_BATCH = 1000
_SAMPLES_AT_ONCE = 3000
_DEVIATIONS_AT_ONCE = 3 * 10**7
# Numbers of the decoder's largest layer at once, 400 MB of them: images of up to 64 x 64 x 3 are
# never too many, as the settings are by default.
_NUMBERS_AT_ONCE = 10**8


def images_at_once(params: HParams, most: int, share: int = 1) -> int:
    """How many images to decode, or to hold, at once: `most`, or what memory allows.

    A `share` of memory is one over so much, where several such batches are in it.
    """
    rows, columns, channels = params.image_shape
    # Of the decoder's last layers one has half the sides, the other the full ones.
    halves = ((rows + 1) // 2) * ((columns + 1) // 2)
    largest = max(halves * params.decoder_channels, rows * columns * channels)
    return max(1, min(most, _NUMBERS_AT_ONCE // share // largest))


def evaluation_batch(params: HParams) -> int:
    """Images of an evaluation's batch."""
    samples = images_at_once(params, _SAMPLES_AT_ONCE)
    if PRIORS[params.prior].has_components:
        deviations = params.prior_components * params.latent_size
        samples = min(samples, _DEVIATIONS_AT_ONCE // deviations)
    return max(1, min(_EVALUATION_BATCH, samples // params.samples_evaluated))
