"""Networks that losses ask and that never train."""
