"""A run's report verified by little: the ledgers, the signatures and the figures that follow from them, without torch.

`verify` is what it checks, and what it does not; `figures` what follows from one ledger; `program` its command, which
`zipped` packs with all that it imports of this distribution into one file. It imports `cryptography`, numpy, scipy and
dp-accounting, and nothing else from outside: `fedmodel report verify` checks more and needs all of fedmodel.
"""
