//! A stand-in for the API of Amazon EC2 and of EBS: moto's server, behind a proxy that is stricter than Amazon.
//!
//! Every request and every answer is held to the service models that botocore carries (`ec2` 2016-11-15, `ebs` 2019-11-02): the
//! operation exists, every parameter is one of it, required ones are there, values have their types and are among those that are
//! listed. What moto leaves out, the proxy adds: client tokens, boot mode and TPM of images, security groups that are in use,
//! the states of snapshots, and the blocks that they are made of. And it does on purpose what Amazon does now and then: see
//! [`Fault`] and [`Slow`].
//!
//! Each [`AwsCloud`] is an account of its own at one server of moto for the whole process, which ends with it.

mod answer;
mod ebs;
mod fault;
mod model;
mod moto;
mod proxy;
mod query;
mod world;
mod xml;

pub use fault::{Fault, Slow, When};
pub use proxy::AwsCloud;
pub use query::Seen;
