"""Files at rest, in the age format."""
