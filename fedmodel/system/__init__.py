"""The machine beneath: files replaced whole, processes kept up, installed packages, the environment, inert text."""
