"""Lets everything run for long and looks whether memory, handles, threads or the database grow."""
