"""What the numbers say and how surely: pure functions of arrays and tables."""
