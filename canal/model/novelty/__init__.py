"""Neighbours, novelty scores and their calibration."""
