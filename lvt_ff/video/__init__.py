"""Video files to frames. Nothing here imports torch: decoder processes start in an instant."""
