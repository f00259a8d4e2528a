"""Models and methods of other projects, run by this one's `generate(want, given)`."""
