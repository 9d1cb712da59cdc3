"""From what is there to a settings file: looks, changes nothing, and marks what it guesses."""
