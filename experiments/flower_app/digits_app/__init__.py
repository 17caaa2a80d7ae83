"""fedgc's quickstart as an app for Flower's own runtimes."""
