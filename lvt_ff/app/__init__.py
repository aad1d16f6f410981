"""The page on which people try models, and the same as a Space."""
