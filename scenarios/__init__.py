"""The `fedmodel` command, the runner behind it, its two engines and the built-in scenarios."""
