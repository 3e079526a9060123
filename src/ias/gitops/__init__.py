"""Gitops: what an org declares, what there is, the plan from one to the other, and its application."""
