"""Which schedule trains this network best, for a given optimizer?

    python sweeps/schedulers.py

SGD with momentum 0.9 from a learning rate of 0.02: left alone, and under six schedules, 30 epochs of LeNet on
Fashion-MNIST, one seed. About 12 minutes on 2 cores. `--schedulers all` takes every schedule there is,
`--optimizers adam --lrs 0.001` asks the same of another optimizer, and `--grid scheduler.warmup_epochs=0,3` asks
whether to warm up.

Out come the ranking, the training loss by epoch above the learning rate that each schedule really applied and, with
several learning rates, the final validation accuracy by learning rate and schedule.
"""

from sweeps import Sweep, main

SWEEP = Sweep(
    name="schedulers",
    question="Which schedule trains this network best, for a given optimizer?",
    optimizers=("sgd_momentum",),
    schedulers=("none", "time_based", "step", "exponential", "plateau", "cosine", "one_cycle"),
    lrs=(0.02,),
    epochs=30,
    plots=("schedules", "lr_by_schedule"),
)

if __name__ == "__main__":
    main(SWEEP)
