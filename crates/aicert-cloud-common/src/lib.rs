#![doc = include_str!("../README.md")]

mod image;
mod pace;
mod price;
mod provisioning;
mod tags;

pub use image::{ImageError, SparseImage};
pub use pace::{Again, Pace, Transient, WaitError};
pub use price::PriceClass;
pub use provisioning::provisioning_document;
pub use tags::{Names, Owner, ParseOwnerError, Tags};
