"""Drawn people: data whose W+ codes are known exactly, because a fixed generator drew them from those codes."""
