//! Log lines from files and the journal.
