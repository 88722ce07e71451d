"""The report: a run on one page, signed, with what it rests on."""
