"""How should a plateau schedule be set?

    python sweeps/plateau.py

48 settings of ReduceLROnPlateau on the training loss (factor x patience x threshold), SGD with momentum 0.9 from a
learning rate of 0.02, 30 epochs of LeNet on Fashion-MNIST, one seed. Most settings share most of their epochs, so about
165 of the 1,440 are trained: some 10 minutes on 2 cores. Every other setting is an axis too:
`--grid scheduler.monitor=val_loss,val_accuracy scheduler.cooldown=0,2`.

Out come the ranking, a heat map over each pair of settings, when each setting lowered the rate and what came of it, and
the curves of the best and the worst.
"""

from sweeps import Sweep, axis, main, product

SWEEP = Sweep(
    name="plateau",
    question="How should a plateau schedule be set?",
    optimizers=("sgd_momentum",),
    schedulers=("plateau",),
    lrs=(0.02,),
    epochs=30,
    grid=product(
        axis("scheduler.factor", 0.1, 0.3, 0.5),
        axis("scheduler.patience", 1, 2, 5, 10),
        axis("scheduler.threshold", 1e-4, 1e-3, 1e-2, 1e-1),
    ),
    plots=("plateau_pairs", "plateau_reductions", "plateau_extremes"),
)

if __name__ == "__main__":
    main(SWEEP)
