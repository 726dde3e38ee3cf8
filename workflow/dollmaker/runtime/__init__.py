"""What every command stands on: the command line, devices, stopping and errors."""
