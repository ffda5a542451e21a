"""The parts of `make bench`: what reads cost a process that serves them from its cache."""
