"""What every command stands on: the command line, devices, stopping, faults and errors."""
