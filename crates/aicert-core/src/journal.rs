//! The write-ahead file of a log.
