"""Parts of a fine-tuning run, each a function of (seed, step) so that any run can be resumed
exactly."""
