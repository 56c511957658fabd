"""The verbs this room adds to the command line: `flightlog server` and `flightlog demo`."""
