"""Models, their parameters as a vector, the step of DP-SGD, and what is measured before it is run."""
