"""A trained model in use: read from where it lies, on records of others, in other formats, with a card."""
