"""What an audited silo runs beside its training: canaries in its data, and a record of what they saw."""
