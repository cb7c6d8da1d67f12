"""Security: what travels, what can be read from it, who may poison it, and what a server does about it."""
