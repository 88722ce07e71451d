"""What runs at the coordinator: the Flower ServerApp, its rounds, averaging, metrics and checkpoints."""
