"""Which optimizer trains this network best, and how much does it depend on the learning rate?

    python sweeps/optimizers.py

SGD, SGD with momentum, RMSprop and Adam, each over its grid of learning rates, 10 epochs of LeNet on Fashion-MNIST,
one seed. About 8 minutes on 2 cores; `--more-seeds 4` adds four seeds, and with them intervals, and `--decide` adds
seeds where they are needed until it is decided which optimizer is best.
"""

from sweeps import Sweep, main

SWEEP = Sweep(
    name="optimizers",
    question="Which optimizer trains this network best, and how much does it depend on the learning rate?",
    optimizers=("sgd", "sgd_momentum", "rmsprop", "adam"),
    epochs=10,
)

if __name__ == "__main__":
    main(SWEEP)
