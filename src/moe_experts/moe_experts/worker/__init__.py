"""The process that holds a base model: one thread owns its context, the node talks to it over a socket."""
