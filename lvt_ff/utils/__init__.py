"""What every room may use: errors, checks of arguments, the command line, files, plots."""
