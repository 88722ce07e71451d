"""A run's folder, read: its summary, its ledgers, its audit's entries, and what they say of its cost."""
