"""Receipts: is what is stored what the trainings gave? The chain of states, and epochs that are trained again."""
