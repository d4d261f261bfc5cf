#![doc = include_str!("../README.md")]

mod archive;
mod cache;
mod config;
mod dependencies;
mod docker;
mod engine;
mod error;
mod failure;
mod gpu;
mod image;
mod install;
mod output;
mod owner;
mod pip;
mod process;
mod recipe;
mod requirements;
mod run;
mod sandbox;
mod wheel;

pub use config::DockerConfig;
pub use docker::DockerRuntime;
