"""The steps that run on PyTorch: the default architecture, the same images.

Their sides are divisible by 4, as MNIST's are: nothing is cut off. The LSTM has a second bias,
which adds nothing to the function.
"""

import itertools
import math
import tempfile
from concurrent import futures

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scripts.benchmark import timed_steps
from scripts.benchmark.architecture import (
    LOG_LIKELIHOOD_IMAGES,
    LOG_LIKELIHOOD_SAMPLES,
    Architecture,
)

_FOREVER = itertools.repeat(None)
# Samples for a log p(x) that are decoded at once, as many as ours.
_CHUNK = 500


class Autoencoder(nn.Module):
    """Images `[batch, rows, features]` to their ELBO's terms in nats, `[batch]` each."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.lstm = nn.LSTM(sizes.row[1], sizes.units, batch_first=True)
        self.mean, self.raw_scale = [nn.Linear(4 * sizes.units, sizes.latents) for _ in range(2)]
        layers = [layer for pair in sizes.dense for layer in (nn.Linear(*pair), nn.ELU())]
        rows, columns, channels = sizes.quarter
        layers.append(nn.Unflatten(1, (channels, rows, columns)))
        for inputs, outputs, side in sizes.convolutions:
            more = {'stride': 2, 'padding': 1, 'output_padding': side % 2}
            layers += [nn.ConvTranspose2d(inputs, outputs, side, **more), nn.ELU()]
        self.decode = nn.Sequential(*layers[:-1], nn.Flatten(), nn.Unflatten(1, sizes.row))

    def encode(self, images):
        hidden, _ = self.lstm(images)
        summary = torch.cat([hidden[:, step] for step in self.sizes.read_after], dim=1)
        return self.mean(summary), functional.softplus(self.raw_scale(summary)) + 1e-4

    def forward(self, images):
        mean, scale = self.encode(images)
        return terms(images, mean, scale, self.decode(mean + scale * torch.randn_like(mean)))

    def evaluate(self, images, samples):
        """As our evaluation: mean terms of some samples, and the importance-weighted bound."""
        mean, scale = self.encode(images)
        noise = torch.randn(len(mean), samples, mean.shape[1])
        latents = mean[:, None] + scale[:, None] * noise
        logits = self.decode(latents.flatten(0, 1)).view(len(mean), samples, *self.sizes.row)
        loss, reconstruction, divergence = terms(images[:, None], mean, scale, logits)
        log_weights = log_weights_of(reconstruction, latents, noise, scale[:, None])
        bound = math.log(samples) - torch.logsumexp(log_weights, 1)
        return loss.mean(1), reconstruction.mean(1), divergence, bound

    def log_weights(self, image, mean, scale):
        """Log-likelihoods and log-weights, `[_CHUNK]` each, of samples of an image's posterior."""
        noise = torch.randn(_CHUNK, mean.shape[0])
        latents = mean + scale * noise
        logits = self.decode(latents)
        _, reconstruction, _ = terms(image, mean[None], scale[None], logits)
        return -reconstruction, log_weights_of(reconstruction, latents, noise, scale)

    def serve(self, images):
        """All that the SavedModel's `serving_default` returns."""
        mean, scale = self.encode(images)
        logits = self.decode(mean)
        return (torch.sigmoid(logits), mean, scale) + terms(images, mean, scale, logits)


def log_weights_of(reconstruction, latents, noise, scale):
    """Returns log p(x, z) / q(z | x) of latents, up to the same constants in p(z) and q(z | x)."""
    log_posterior = -(0.5 * noise**2 + torch.log(scale)).sum(-1)
    return -reconstruction - (0.5 * latents**2).sum(-1) - log_posterior


def terms(images, mean, scale, logits):
    """Returns negative ELBO, reconstruction loss, of each sample if there are some, and KL."""
    images = images.expand_as(logits)
    nats = functional.binary_cross_entropy_with_logits(logits, images, reduction='none')
    loss = nats.sum((-2, -1))
    divergence = (0.5 * (mean**2 + scale**2 - 1) - torch.log(scale)).sum(1)
    return loss + divergence.view(-1, *[1] * (loss.ndim - 1)), loss, divergence


class Runs:
    """What a process may be started for, by name; iterators over steps."""

    def __init__(self, kind, settings):
        self.params, self.files = settings['params'], settings['data']['files']
        torch.set_num_threads(settings['threads'])
        torch.manual_seed(self.params['seed'])
        self.network = Autoencoder(Architecture(self.params))
        self.wrapped = torch.compile if kind == 'torch_compiled' else lambda function: function
        self.size = self.params['batch_size']

    def training(self):
        loss_fn = self.wrapped(lambda images: self.network(images)[0].mean())
        parameters = list(self.network.parameters())
        optimizer = torch.optim.Adam(parameters, self.params['learning_rate'], fused=True)
        for images in self.input():
            optimizer.zero_grad(set_to_none=True)
            loss_fn(images).backward()
            nn.utils.clip_grad_norm_(parameters, self.params['max_gradient_norm'])
            yield optimizer.step()

    def input(self):
        """Batches by one index operation each."""
        pixels = self._pixels('train')
        chosen = (torch.randint(len(pixels), (self.size,)) for _ in _FOREVER)
        return (pixels[some].float() / 255 for some in chosen)

    def loader(self):
        """Batches of a DataLoader in this process, which asks for whole batches."""

        class Images(torch.utils.data.TensorDataset):
            def __getitems__(self, indices):
                return self.tensors[0][indices].float() / 255

        images = Images(self._pixels('train'))
        options = {'shuffle': True, 'collate_fn': lambda batch: batch}
        loader = torch.utils.data.DataLoader(images, self.size, **options)
        return (batch for _ in _FOREVER for batch in loader)

    def evaluation(self):
        samples = self.params['evaluation_samples']
        terms_fn = self.wrapped(lambda images: self.network.evaluate(images, samples))
        pixels = self._pixels('test')
        with torch.no_grad():
            for _ in self._weights():
                found = [torch.stack(terms_fn(some.float() / 255)) for some in pixels.split(1000)]
                yield torch.cat(found, dim=1).mean(1).tolist()

    def log_likelihood(self):
        """An image a thread, as ours: all threads at one image take longer."""
        log_weights = self.wrapped(self.network.log_weights)
        chunks = range(LOG_LIKELIHOOD_SAMPLES // _CHUNK)
        images = self._pixels('test')[:LOG_LIKELIHOOD_IMAGES].float() / 255
        threads = torch.get_num_threads()
        torch.set_num_threads(1)

        @torch.inference_mode()
        def estimate(*one):
            likelihood, weights = map(torch.cat, zip(*[log_weights(*one) for _ in chunks]))
            bound = torch.logsumexp(weights, 0) - math.log(LOG_LIKELIHOOD_SAMPLES)
            return bound.item(), likelihood.mean().item()

        with futures.ThreadPoolExecutor(threads) as pool, torch.no_grad():
            while True:
                yield list(pool.map(estimate, images, *self.network.encode(images)))

    def generate(self):
        draw = self.wrapped(lambda noise: torch.sigmoid(self.network.decode(noise)))
        with torch.inference_mode():
            for _ in self._weights():
                noise = torch.randn(10000, self.network.sizes.latents).split(1000)
                yield torch.cat([draw(part) for part in noise]).numpy()

    def inference(self):
        serve = self.wrapped(self.network.serve)
        images = (self._pixels('test')[: self.size].float() / 255).numpy()
        with torch.inference_mode():
            while True:
                yield [output.numpy() for output in serve(torch.from_numpy(images))]

    def _pixels(self, split):
        """uint8 [images, rows, features]."""
        pixels = torch.from_numpy(np.fromfile(self.files[split], np.uint8))
        return pixels.view(-1, *self.network.sizes.row)

    def _weights(self):
        """Reads the network's weights from a file, again and again."""
        with tempfile.TemporaryDirectory() as folder:
            torch.save(self.network.state_dict(), folder + '/weights.pt')
            while True:
                yield self.network.load_state_dict(torch.load(folder + '/weights.pt'))


if __name__ == '__main__':
    timed_steps.serve(lambda kind, what, settings: getattr(Runs(kind, settings), what)())
