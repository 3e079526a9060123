"""Tables and queries, one file per noun. Each function runs inside the transaction that its caller opened."""
