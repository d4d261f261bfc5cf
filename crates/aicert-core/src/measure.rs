//! Measuring the files below a directory.
