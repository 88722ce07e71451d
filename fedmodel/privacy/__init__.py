"""What is done to records, as events; the randomness and the grid that it rests on; and what it costs."""
