"""The commands of `forepath`, grouped by what a person wants: to look, to decide, to run, to try."""
