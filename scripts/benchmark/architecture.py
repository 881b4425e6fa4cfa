"""The network's layers by their sizes, for peers that build it anew and for a step's cost."""

# What log p(x) is estimated of, and from how many samples of each image.
LOG_LIKELIHOOD_IMAGES, LOG_LIKELIHOOD_SAMPLES = 8, 5000


class Architecture:
    """Sizes that follow from the trainer's settings, a dict by name."""

    def __init__(self, params):
        rows, columns, channels = params['image_shape']
        width, maps = params['decoder_units'], params['decoder_channels']
        self.units, self.latents = params['lstm_units'], params['latent_size']
        self.row = rows, columns * channels  # the LSTM's time steps, and features of each
        # The time steps after which the posterior's two layers read the hidden state.
        ends = {rows * quarter // 4 for quarter in (1, 2, 3, 4)} - {0}
        self.read_after = [end - 1 for end in sorted(ends)]
        # Rows, columns and channels that the transpose convolutions start from.
        self.quarter = (rows + 3) // 4, (columns + 3) // 4, maps
        widths = [self.latents, width, width, self.quarter[0] * self.quarter[1] * maps]
        self.dense = list(zip(widths, widths[1:]))  # of the decoder: inputs, outputs
        # How each transpose convolution enlarges a side; what is too much of it is cut off.
        self.strides = [2 if side > 1 else 1 for side in (rows, columns)]
        # Input channels, output channels, and the kernel's side along a stride of 2.
        self.convolutions = [(maps, maps, 3), (maps, channels, 4)]

    def kernel(self, size):
        """Returns the rows and columns of a kernel of that size: 1 where a side stays 1."""
        return [size if stride == 2 else 1 for stride in self.strides]

    def training_flops(self):
        """Returns the additions and multiplications of an example's products."""
        return sum(self.training_flops_by_part().values())

    def training_flops_by_part(self):
        """Returns those of encoder, Dense layers and transpose convolutions.

        A layer's backward pass is two products of the size of its forward one, for its weights and
        for its input; images need no gradient.
        """
        (steps, features), gates = self.row, 4 * self.units
        encoder = 2 * steps * features * gates
        encoder += 3 * 2 * len(self.read_after) * self.units * self.latents
        encoder += 3 * (steps - 1) * self.units * gates  # the first step has no state before it
        dense = 3 * sum(inputs * outputs for inputs, outputs in self.dense)
        convolutions, pixels = 0, self.quarter[0] * self.quarter[1]
        for inputs, outputs, size in self.convolutions:
            down, right = self.kernel(size)
            convolutions += 3 * pixels * down * right * inputs * outputs
            pixels *= self.strides[0] * self.strides[1]
        return {
            'encoder, matrix products': 2 * encoder,
            'decoder, matrix products': 2 * dense,
            'decoder, transpose convolutions': 2 * convolutions,
        }
