"""Recordings in, episodes out: storage readers, segmentation, ticks, the converter, inspection."""
