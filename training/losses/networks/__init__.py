"""Networks that losses use and that never train."""
