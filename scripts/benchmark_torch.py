"""The PyTorch contestant of benchmark.py: the default architecture, trained on the same images.

python benchmark_torch.py torch_eager|torch_compiled SETTINGS_AS_JSON
"""

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from turns import serve_steps


class Autoencoder(nn.Module):
    """Images `[batch, rows, features]` to the mean negative ELBO in nats."""

    def __init__(self, settings):
        super().__init__()
        rows, columns, channels = settings['image_shape']
        units, latents = settings['lstm_units'], settings['latent_size']
        width, maps = settings['decoder_units'], settings['decoder_channels']
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

    def forward(self, images):
        hidden, _ = self.lstm(images)
        summary = torch.cat([hidden[:, row] for row in self.at], dim=1)
        mean = self.mean(summary)
        scale = functional.softplus(self.raw_scale(summary)) + 1e-4
        latents = mean + scale * torch.randn_like(mean)
        maps = functional.elu(self.first(self.dense(latents).view(-1, *self.quarter)))
        logits = self.last(maps).reshape(images.shape)
        reconstruction = functional.binary_cross_entropy_with_logits(
            logits, images, reduction='none'
        )
        divergence = 0.5 * (mean**2 + scale**2 - 1) - torch.log(scale)
        return (reconstruction.sum((1, 2)) + divergence.sum(1)).mean()


def main():
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(settings['threads'])
    torch.manual_seed(settings['seed'])
    network = Autoencoder(settings)
    loss_fn = torch.compile(network) if name == 'torch_compiled' else network
    optimizer = torch.optim.Adam(network.parameters(), settings['learning_rate'], fused=True)
    rows, columns, channels = settings['image_shape']
    pixels = torch.from_numpy(np.fromfile(settings['data_file'], np.uint8))
    pixels = pixels.view(-1, rows, columns * channels)

    def step():
        chosen = torch.randint(len(pixels), (settings['batch_size'],))
        optimizer.zero_grad(set_to_none=True)
        loss_fn(pixels[chosen].float() / 255).backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings['max_gradient_norm'])
        optimizer.step()

    serve_steps(step)


if __name__ == '__main__':
    main()
