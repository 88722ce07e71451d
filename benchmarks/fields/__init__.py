"""Fields of the benchmark of utility, each in a file, and how their rows are trained."""
