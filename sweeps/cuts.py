"""When should the learning rate be cut, and what is each cut worth?

    python sweeps/cuts.py

SGD with momentum 0.9 at a learning rate of 0.02, 10 epochs of LeNet on Fashion-MNIST, three seeds: never cut; cut once,
by 0.1 or by 0.3, after every other epoch; and left to a few settings of ReduceLROnPlateau. Until its cut, every branch
of a seed is the same training, and after it the same images come in the same order: what a cut was worth is a
difference of two trainings that differ in nothing else. About 220 of its 450 epochs are trained, in some
13 minutes on 2 cores. `--more-seeds 5` makes it surer, `--grid scheduler.after_epoch=2,4,6,8` asks for other moments.

Out come what each cut gained by the epoch after which it was made, the best moment, and when each plateau setting cut
and how far that left it behind.
"""

from sweeps import Sweep, axis, chain, main, product

factors = axis("scheduler.factor", 0.1, 0.3)

SWEEP = Sweep(
    name="cuts",
    question="When should the learning rate be cut, and what is each cut worth?",
    optimizers=("sgd_momentum",),
    lrs=(0.02,),
    epochs=10,
    seeds=(1, 2, 3),
    grid=chain(
        axis("scheduler", "none"),
        product(axis("scheduler", "cut"), factors, axis("scheduler.after_epoch", 1, 3, 5, 7, 9)),
        product(axis("scheduler", "plateau"), factors, axis("scheduler.patience", 0, 1)),
    ),
    plots=("cuts", "plateau_reductions"),
)

if __name__ == "__main__":
    main(SWEEP)
