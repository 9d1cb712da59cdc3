"""What became of actions: their outcome, their promise held against what was measured, and the words for people."""
