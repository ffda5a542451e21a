"""Commands that ask a running server, through the typed client as any other caller does."""
