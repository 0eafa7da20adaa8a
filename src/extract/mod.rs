//! From a line to its facts.
