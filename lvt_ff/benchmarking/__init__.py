"""How fast models are, and how much memory they take: timed side by side in one run."""
