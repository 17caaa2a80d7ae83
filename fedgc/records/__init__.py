"""Flower's records and arrays, as clients, strategies and the embedded runtime copy, read and write them."""
