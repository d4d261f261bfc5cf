//! Why nothing can be said about what an image measures.

use std::io;

use super::stub::{NEWEST, OLDEST};

/// Says why it could not be computed what booting an image measures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be read.
    #[error("the file cannot be read at byte {offset}, where its {what} should be: {source}")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// Where, in bytes from the beginning of the file.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The file is neither of the two kinds.
    #[error(
        "the file begins with {found}; expected `MZ` (a UKI) or a disk with a partition table (`EFI PART` at byte 512 or 4096): give the UKI or the raw disk image, not one that is packed or of another format such as qcow2"
    )]
    Unknown {
        /// What it begins with.
        found: String,
    },
    /// Something is too large.
    #[error("the {what} has more than {limit} bytes, which is more than is read: is this the right file?")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The most bytes that are read.
        limit: u64,
    },
    /// A program is not one that every loader reads in the same way.
    #[error(
        "{file}, at byte {offset}: {reason}; firmware may refuse it or measure something else, so build the image again"
    )]
    Pe {
        /// Which program: `the UKI`, or `the kernel in .linux`.
        file: &'static str,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A section of the UKI is not one that this computes for.
    #[error("section {name:?} of the UKI: {reason}")]
    Section {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The file is no UKI with systemd-stub.
    #[error(
        "the UKI has no section `.sdmagic` with `#### LoaderInfo: systemd-stub VERSION ####` in it ({found}): this computes for UKIs that are made with systemd-stub"
    )]
    NoStub {
        /// What was found instead.
        found: String,
    },
    /// It is not known what this version of systemd-stub measures.
    #[error(
        "the UKI is made with systemd-stub {found:?}; it is known what the versions {OLDEST} to {NEWEST} measure: build the image with one of these, or say as which of them it is to be treated"
    )]
    Stub {
        /// The version, as the image says it.
        found: String,
    },
    /// It is not known what this kernel measures.
    #[error("the kernel {found:?} in `.linux`: {reason}")]
    Kernel {
        /// Its release, as far as there is one.
        found: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The kernel command line is one that the versions of systemd-stub and Linux treat differently.
    #[error("the kernel command line in `.cmdline`, at byte {offset}: {reason}; write it as plain text")]
    CommandLine {
        /// Where in it.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// The disk's partition table cannot be read.
    #[error("the partition table, at byte {offset}: {reason}")]
    PartitionTable {
        /// Where on the disk.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The EFI system partition cannot be read.
    #[error("the file system of the EFI system partition, at byte {offset}: {reason}")]
    FileSystem {
        /// Where on the disk.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// There is no such file on the EFI system partition.
    #[error("the EFI system partition has no {path:?}: there is {found}")]
    NoFile {
        /// What was looked for.
        path: String,
        /// What there is in the last folder that exists.
        found: String,
    },
    /// The EFI system partition has files that the stub adds to what it starts.
    #[error(
        "the EFI system partition has {path:?} in {folder:?}: systemd-stub hands such files to the kernel and measures them into PCR 12 or 13, which must stay zero; build them into the image"
    )]
    Sidecar {
        /// The folder that systemd-stub looks into.
        folder: String,
        /// The first file in it.
        path: String,
    },
    /// The name that was asked for is none.
    #[error("the name {0:?} is not 1 to 200 bytes of visible text")]
    Name(String),
}
