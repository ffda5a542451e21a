"""Who may call: the identities file, the tokens and certificates in it, and files that are followed as they change."""
