"""The core of fedmodel: mechanisms, accounting, DP-SGD, models, data, ledger and wire format.

It decides nothing about a run: `clients` and `server` are the parties, and `scenarios` starts them. What they stand on
is here, down to how a process is supervised, a connection secured and a database read.
"""
