//! A stand-in for the API of Amazon EC2.
