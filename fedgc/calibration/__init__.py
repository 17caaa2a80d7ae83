"""Calibration of the optimal decoder: find the blocks and their states, and solve for the target, by quadrature."""
