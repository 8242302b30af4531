"""The registry: experts, versions, aliases, route samples, jobs and the log of every transition, on Postgres."""
