"""Kinds that a scenario names, of a model or of a source: a file each, its section and what it makes of it.

`models` and `sources` hold a file each kind, and `model` and `source` say what is asked of one. A kind is added by its
file alone (`fedmodel.system.kinds`). `section` and `spelling` are what every section of every file has in common.

Nothing here imports torch but a model that is built: who joins a run, or reads a scenario, waits for none of it.
"""
