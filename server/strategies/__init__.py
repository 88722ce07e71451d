"""Strategies: who trains in a round, and what the mean of their updates does to the model; a file each."""
