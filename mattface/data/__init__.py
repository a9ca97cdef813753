"""Facts about faces as data: which mesh point is which."""
