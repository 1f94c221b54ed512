"""Does weight decay help, and does it matter whether it is decoupled?"""

from sweeps import Sweep, axis, chain, main, product

decays = axis("optimizer.weight_decay", 1e-4, 1e-3, 1e-2)

SWEEP = Sweep(
    name="weight-decay",
    question="Does weight decay help, and does it matter whether it is decoupled?",
    grid=chain(
        product(axis("optimizer", "adam"), axis("optimizer.weight_decay", 0)),
        product(axis("optimizer", "adam", "adamw"), decays),
    ),
    lrs=(1e-3,),
    schedulers=("cosine",),
    seeds=(1, 2, 3, 4, 5),
    epochs=10,
)

if __name__ == "__main__":
    main(SWEEP)
