//! The command of the server.
fn main() {}
