"""`python -m fedmodel`: the command, which is above this package and is looked up by name, as its face is."""

from importlib import import_module

if __name__ == "__main__":
    import_module("scenarios.cli.entry").main()
