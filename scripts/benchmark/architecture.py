"""The network's layers by their sizes, for peers that build it anew and for a step's cost."""


class Architecture:
    """Sizes that follow from the trainer's settings, a dict by name."""

    def __init__(self, params):
        rows, columns, channels = params['image_shape']
        width, maps = params['decoder_units'], params['decoder_channels']
        self.units, self.latents = params['lstm_units'], params['latent_size']
        self.row = rows, columns * channels  # the LSTM's time steps, and features of each
        # The time steps after which the posterior's two layers read the hidden state.
        self.read_after = [rows * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        # Rows, columns and channels that the transpose convolutions start from.
        self.quarter = rows // 4, columns // 4, maps
        widths = [self.latents, width, width, rows // 4 * (columns // 4) * maps]
        self.dense = list(zip(widths, widths[1:]))  # of the decoder: inputs, outputs
        # Input channels, output channels, the kernel's side; each doubles the image's sides.
        self.convolutions = [(maps, maps, 3), (maps, channels, 4)]

    def training_flops(self):
        """Returns the additions and multiplications of an example's products.

        A layer's backward pass is two products of the size of its forward one, for its weights and
        for its input; images need no gradient.
        """
        (steps, features), gates = self.row, 4 * self.units
        macs = 2 * steps * features * gates + 3 * 2 * gates * self.latents
        macs += 3 * (steps - 1) * self.units * gates  # the first step has no state before it
        macs += 3 * sum(inputs * outputs for inputs, outputs in self.dense)
        for number, (inputs, outputs, side) in enumerate(self.convolutions):
            macs += 3 * self.quarter[0] * self.quarter[1] * 4**number * side**2 * inputs * outputs
        return 2 * macs
