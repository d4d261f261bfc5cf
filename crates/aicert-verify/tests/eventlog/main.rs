//! Event logs: of real machines, and forged ones.

mod builder;
mod bytes;
mod forged;
mod honest;
mod vectors;
