"""Global random generators, from which Flower and the apps on it draw: seeded, kept, put back, saved."""

from fedgc.global_random.seeded import globals_to_tree, kept_globals, restore_globals, seed_globals, seeded_globals

__all__ = ["globals_to_tree", "kept_globals", "restore_globals", "seed_globals", "seeded_globals"]
