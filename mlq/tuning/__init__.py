"""Tuning: which configuration of the quantizer suits a network, found in a few trials."""
