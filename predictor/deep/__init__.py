"""One small neural network over all series at once: what the LSTM and the Transformer have in common.

Only `networks` and `training` import torch, and only when a network is trained or asked, so that nobody who does not
use them needs it (or its memory).
"""
