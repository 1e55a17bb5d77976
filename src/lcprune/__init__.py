"""Shrink a convolutional network to a resource budget with layer-compensated pruning."""
