"""A run's report: gathered from its folder, built, verified, compared."""
