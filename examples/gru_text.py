"""Does clipping the gradient help a recurrent network that reads a text character by character?

    python examples/gru_text.py

A GRU predicts the next character of the first acts of Shakespeare's Coriolanus, which lie beside this file. Adam at two
learning rates, with no bound on the norm of the gradient and with two: 6 trials of 8 epochs.
About 2 minutes on 2 cores. A bound of 0.1, about half of the usual norm, gains little: a validation accuracy of 0.471
instead of 0.468 at 0.01, and 0.465 instead of 0.461 at 0.03. Other seeds would tell (`--more-seeds 4`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sweeps import Sweep, axis, main
from workloads import Workload

TEXT = Path(__file__).with_name("coriolanus.txt")
CHARACTERS = 128
"""Of ASCII."""
LENGTH = 64
"""Characters that are read in one go."""


class Reader(nn.Module):
    """Predicts, after each character, which one comes next."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 32)
        self.gru = nn.GRU(32, width, batch_first=True)
        self.output = nn.Linear(width, CHARACTERS)

    def forward(self, text: Tensor) -> Tensor:
        """Returns logits (n, CHARACTERS, LENGTH) for characters (n, LENGTH)."""
        states, _ = self.gru(self.embedding(text))
        logits: Tensor = self.output(states)
        return logits.transpose(1, 2)


def data() -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Characters (n, LENGTH) and those that follow them, of three consecutive parts of the text."""
    text = np.frombuffer(TEXT.read_bytes(), np.uint8).astype(np.int64)
    train, val, test = np.split(text, [len(text) * 8 // 10, len(text) * 9 // 10])
    return {"train": _windows(train), "val": _windows(val), "test": _windows(test)}


def _windows(text: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    count = (len(text) - 1) // LENGTH
    inputs, targets = text[: count * LENGTH], text[1 : count * LENGTH + 1]
    return inputs.reshape(count, LENGTH), targets.reshape(count, LENGTH)


SWEEP = Sweep(
    name="gru-text",
    question="Does clipping the gradient help a recurrent network that reads a text character by character?",
    workload=Workload(name="gru", network=Reader, data=data),
    optimizers=("adam",),
    lrs=(0.01, 0.03),
    grid=axis("workload.clip_norm", None, 0.1, 0.3),
    batch_size=32,
    epochs=8,
)

if __name__ == "__main__":
    main(SWEEP)
