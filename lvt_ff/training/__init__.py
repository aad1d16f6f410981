"""Parts of a fine-tuning run, functions of (seed, step): any run can be resumed exactly."""
