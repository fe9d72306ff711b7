//! Helpers of the black-box tests: namespaces, the daemon, log writers.
