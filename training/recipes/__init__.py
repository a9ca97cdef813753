"""Recipes: one function per trained network, each returning one complete frozen configuration."""
