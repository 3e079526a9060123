"""Proofs on real processes: what the gateways admit, what the engine serves and what the ledger holds are one."""
