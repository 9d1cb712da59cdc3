"""MEETS PEOPLE: the command line, the settings file, the supervisor of the processes and the demo.

Nothing is imported here: `ryu-manager`, one of its commands, must patch the interpreter before anything else is loaded.
"""
