#![doc = include_str!("../README.md")]

mod console;
mod image;
mod issuers;
mod message;
mod pace;
mod price;
mod provisioning;
mod tags;
mod waits;

pub use console::console_text;
pub use image::{ImageError, SparseImage};
pub use issuers::read_issuers;
pub use message::one_line;
pub use pace::{Again, Pace, Transient, WaitError};
pub use price::PriceClass;
pub use provisioning::provisioning_document;
pub use tags::{Names, Owner, ParseOwnerError, Tags};
pub use waits::Waits;
