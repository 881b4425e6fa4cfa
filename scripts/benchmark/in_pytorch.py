"""The contestants of the benchmark that run on PyTorch: the default architecture, the same images.

    python -m scripts.benchmark.in_pytorch torch_eager|torch_compiled WHAT SETTINGS_AS_JSON

Its LSTM has a second bias, which adds nothing to the function.
"""

import json
import os
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scripts.benchmark.timed_steps import serve_steps

_LARGE_BATCH = 1000


class Autoencoder(nn.Module):
    """Images `[batch, rows, features]` to their ELBO's terms in nats, `[batch]` each."""

    def __init__(self, params):
        super().__init__()
        rows, columns, channels = params['image_shape']
        units, latents = params['lstm_units'], params['latent_size']
        width, maps = params['decoder_units'], params['decoder_channels']
        self.latents = latents
        self.shape = (rows, columns * channels)
        self.quarter = (maps, rows // 4, columns // 4)
        self.at = [rows * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        self.lstm = nn.LSTM(columns * channels, units, batch_first=True)
        self.mean = nn.Linear(4 * units, latents)
        self.raw_scale = nn.Linear(4 * units, latents)
        sizes = [latents, width, width, maps * (rows // 4) * (columns // 4)]
        layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ELU())]
        self.dense = nn.Sequential(*layers)
        self.first = nn.ConvTranspose2d(maps, maps, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.ConvTranspose2d(maps, channels, 4, stride=2, padding=1)

    def encode(self, images):
        hidden, _ = self.lstm(images)
        summary = torch.cat([hidden[:, row] for row in self.at], dim=1)
        return self.mean(summary), functional.softplus(self.raw_scale(summary)) + 1e-4

    def decode(self, latents):
        maps = functional.elu(self.first(self.dense(latents).view(-1, *self.quarter)))
        return self.last(maps).reshape(-1, *self.shape)

    @staticmethod
    def terms(images, mean, scale, logits):
        reconstruction = functional.binary_cross_entropy_with_logits(
            logits, images, reduction='none'
        ).sum((1, 2))
        divergence = (0.5 * (mean**2 + scale**2 - 1) - torch.log(scale)).sum(1)
        return reconstruction + divergence, reconstruction, divergence

    def forward(self, images):
        mean, scale = self.encode(images)
        logits = self.decode(mean + scale * torch.randn_like(mean))
        return self.terms(images, mean, scale, logits)

    def loss(self, images):
        return self.forward(images)[0].mean()

    def serve(self, images):
        """All that the SavedModel's `serving_default` returns."""
        mean, scale = self.encode(images)
        logits = self.decode(mean)
        return (torch.sigmoid(logits), mean, scale) + self.terms(images, mean, scale, logits)

    def generate(self, noise):
        return torch.sigmoid(self.decode(noise))


class Contestant:
    """The network with its settings, images of a split, and a way to compile or not."""

    def __init__(self, kind, settings):
        self.params, self.data = settings['params'], settings['data']
        torch.set_num_threads(settings['threads'])
        torch.manual_seed(self.params['seed'])
        self.network = Autoencoder(self.params)
        self.wrapped = torch.compile if kind == 'torch_compiled' else lambda function: function

    def pixels(self, split):
        pixels = torch.from_numpy(np.fromfile(self.data['files'][split], np.uint8))
        return pixels.view(-1, *self.network.shape)

    def run_training(self):
        loss_fn = self.wrapped(self.network.loss)
        parameters = list(self.network.parameters())
        optimizer = torch.optim.Adam(parameters, self.params['learning_rate'], fused=True)
        pixels = self.pixels('train')

        def step():
            chosen = torch.randint(len(pixels), (self.params['batch_size'],))
            optimizer.zero_grad(set_to_none=True)
            loss_fn(pixels[chosen].float() / 255).backward()
            nn.utils.clip_grad_norm_(parameters, self.params['max_gradient_norm'])
            optimizer.step()

        serve_steps(step)

    def run_input(self):
        """Batches by one index operation each, as in `run_training`."""
        pixels = self.pixels('train')
        size = (self.params['batch_size'],)
        serve_steps(lambda: pixels[torch.randint(len(pixels), size)].float() / 255)

    def run_loader(self):
        """Batches of a DataLoader in this process, which asks for whole batches."""
        pixels = self.pixels('train')

        class Images(torch.utils.data.Dataset):
            def __len__(self):
                return len(pixels)

            def __getitems__(self, indices):
                return pixels[indices].float() / 255

        loader = torch.utils.data.DataLoader(
            Images(), self.params['batch_size'], shuffle=True, collate_fn=lambda batch: batch
        )
        batches = (batch for _ in iter(int, 1) for batch in loader)
        serve_steps(lambda: next(batches))

    def run_evaluation(self):
        """The means of the three terms over the test images, by weights read from a file."""
        terms_fn = self.wrapped(self.network)
        pixels = self.pixels('test')
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            weights = self.save(folder)

            def evaluate():
                self.network.load_state_dict(torch.load(weights))
                batches = pixels.split(_LARGE_BATCH)
                terms = [torch.stack(terms_fn(batch.float() / 255)) for batch in batches]
                return torch.cat(terms, dim=1).mean(1).tolist()

            serve_steps(evaluate)

    def run_generate(self):
        """10,000 images from the prior, by weights read from a file."""
        generate = self.wrapped(self.network.generate)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            weights = self.save(folder)

            def draw():
                self.network.load_state_dict(torch.load(weights))
                noise = torch.randn(10000, self.network.latents).split(_LARGE_BATCH)
                return torch.cat([generate(part) for part in noise]).numpy()

            serve_steps(draw)

    def run_inference(self):
        serve = self.wrapped(self.network.serve)
        images = (self.pixels('test')[: self.params['batch_size']].float() / 255).numpy()
        with torch.inference_mode():
            serve_steps(lambda: [output.numpy() for output in serve(torch.from_numpy(images))])

    def save(self, folder):
        path = os.path.join(folder, 'weights.pt')
        torch.save(self.network.state_dict(), path)
        return path


def main():
    kind, what, settings = sys.argv[1:]
    getattr(Contestant(kind, json.loads(settings)), 'run_' + what)()


if __name__ == '__main__':
    main()
