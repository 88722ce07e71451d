"""The core of fedmodel: mechanisms, accounting, DP-SGD, models, data, ledger and wire format.

Nothing here starts a process or opens a socket; `clients`, `server` and `scenarios` do.
"""
