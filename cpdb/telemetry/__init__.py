"""The half that holds what was measured and foreseen: written each second, rolled up, and let go of."""
