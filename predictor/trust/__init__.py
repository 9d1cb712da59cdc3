"""How far each series can be trusted: who is active, what drifts, how good forecasts were, how far ahead they hold."""
