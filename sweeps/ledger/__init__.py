"""What has happened, and where it is kept: the ledger of a run, the library of stored trials, the lock."""
