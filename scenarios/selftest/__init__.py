"""Does the audit find what it is for? Faults planted in the real code, each in a run that is audited."""
