"""Bandwidth kept free ahead of need or because somebody asked for it, and whether it is really obtained."""
