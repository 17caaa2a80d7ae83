"""An app with a client that does harm, whatever the runtime."""
