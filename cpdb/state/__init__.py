"""The half that holds what is known, wanted, asked for and done: few rows, read and written as records."""
