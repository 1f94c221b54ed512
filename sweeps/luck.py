"""When does luck happen, and what should I buy: seeds, epochs, or validation images?

    python sweeps/luck.py

Adam at a learning rate of 0.001, 8 epochs of LeNet on Fashion-MNIST. Four initial weights are trained with four orders
of the images each. Four of these trainings go on with two other orders each from the epochs 2, 4, 6 and 8 on: forks,
which are the same training until then, bit for bit. 256 epochs are trained instead of 384: some 13 minutes on 2 cores.
`--more-seeds 2` adds two orders, and narrows the intervals.

Out come the components of the spread of the final accuracy (initial weights, order, and the choice of the validation
images), how much of it is settled by which epoch, and what a given budget is best spent on.
"""

from sweeps import Sweep, axis, chain, main, product

SEEDS = (1, 2, 3, 4)

CROSSED = product(axis("init_seed", *SEEDS), axis("seed", *SEEDS))
FORKS = chain(
    *(
        product(
            axis("init_seed", seed),
            axis("seed", seed),
            axis("reorder_from", 2, 4, 6, 8),
            axis("order_seed", 10 * seed + 1, 10 * seed + 2),
        )
        for seed in SEEDS
    )
)

SWEEP = Sweep(
    name="luck",
    question="When does luck happen, and what should I buy: seeds, epochs, or validation images?",
    optimizers=("adam",),
    lrs=(0.001,),
    epochs=8,
    grid=product(chain(CROSSED, FORKS), axis("per_image", True)),
    plots=("luck",),
)

if __name__ == "__main__":
    main(SWEEP)
