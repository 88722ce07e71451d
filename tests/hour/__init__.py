"""An hour with fedmodel, from three hospitals' CSV files to a signed report: the files, and the commands."""
