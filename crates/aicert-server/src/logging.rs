//! The log of the server: one JSON object per line on standard output, which in a machine is its console.
//!
//! What is logged is about the server: addresses, job names, states, errors. Never the configuration, what a job prints, or
//! a secret.

use tracing_subscriber::fmt;

/// Starts logging; for the command, once.
pub fn start() {
    // Fails only when somebody logs already, who then has it.
    let _ = tracing::subscriber::set_global_default(
        fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(std::io::stdout)
            .finish(),
    );
}
