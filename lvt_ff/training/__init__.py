"""Fine-tuning and evaluation; all that is random is a function of (seed, step)."""
