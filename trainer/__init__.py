"""A variational autoencoder trainer on TensorFlow 1.14 Estimators.

Data flows one way through the package:

    task (flags) -> hparams (one frozen table) -> prepare_data, input (images)
    -> encoder, decoder, elbo, model (the graph) -> train (Estimator)
    -> export, drawing, results (what stays on disk)
"""

from trainer import logs

# Here, because every module of the package imports TensorFlow, and it has to come before.
logs.silence_chatter()
