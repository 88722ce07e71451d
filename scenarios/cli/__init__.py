"""The `fedmodel` command: a file for each noun, and how it prints."""
