"""How an untrusted process is started, limited and ended."""
