"""Billing: what things cost, what may be spent, and the ledger of what was. See README.md beside this file."""
