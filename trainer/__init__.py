"""A variational autoencoder trainer on TensorFlow 1.14 Estimators.

The programs (`python -m trainer.NAME`) lie here, what they do in the packages beside them:

    settings    of a run, one frozen table        data         images, prepared and read
    model       the network, its priors           checkpoints  which is whole, which is best
    training    the run, its loss and its steps   serving      exports and their signatures
    evaluation  the likelihood of images          scoring      what is unusual, and where
    monitoring  TensorBoard and pictures          cluster      several processes, clouds
    base        what all of them need
"""

from trainer.base import chatter

# Here, because most modules of the package import TensorFlow, and it has to come before.
chatter.silence_chatter()
