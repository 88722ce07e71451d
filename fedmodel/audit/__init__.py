"""The empirical audit: canaries, what they saw, what follows from it."""
