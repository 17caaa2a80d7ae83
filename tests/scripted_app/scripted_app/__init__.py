"""An app in which it is written down who comes in which round, and with how much, whatever the runtime."""
