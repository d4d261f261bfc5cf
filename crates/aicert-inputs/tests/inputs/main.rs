//! The sources against real servers, which the tests start on free ports and have misbehave.

mod directories;
mod files;
mod repositories;
mod server;
mod ssh;
mod support;
