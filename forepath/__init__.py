"""MEETS PEOPLE: the command line, the settings file, the supervisor of the processes and the demo."""
