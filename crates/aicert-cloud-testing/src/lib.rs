#![doc = include_str!("../README.md")]

pub mod aws;
pub mod azure;
pub mod gcp;
