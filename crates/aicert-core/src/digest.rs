//! One type per meaning of a hash, so that a tree root can never be passed where a file's digest is meant.
//!
//! The text form of every digest carries its algorithm (`sha256:` or `sha1:` and lowercase hexadecimal). Parsing
//! accepts that one spelling and no other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Says why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a {what}: expected {expected}")]
pub struct ParseDigestError {
    what: &'static str,
    expected: &'static str,
    found: String,
}

fn decode<const N: usize>(text: &str, prefix: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix(prefix)?;
    // `hex` accepts capitals; one value must have one spelling.
    if digits.len() != 2 * N || digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $len:literal, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps bytes that are already a digest of this meaning.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                decode(text, $prefix).map(Self).ok_or_else(|| ParseDigestError {
                    what: $what,
                    expected: $expected,
                    found: text.chars().take(100).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! sha256_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        hash_type!($(#[$doc])* $name, $what, 32, "sha256:", "\"sha256:\" and 64 lowercase hexadecimal digits");

        impl $name {
            /// Hashes `bytes` with SHA-256.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }
        }
    };
}

sha256_type! {
    /// SHA-256 of the bytes of one file: what `sha256sum` prints.
    FileDigest, "file digest"
}
sha256_type! {
    /// RFC 6962 root over the entries of a measured tree (see [`crate::tree`]).
    TreeRoot, "tree root"
}
sha256_type! {
    /// SHA-256 of the configuration file, byte for byte.
    ConfigDigest, "configuration digest"
}
sha256_type! {
    /// SHA-256 of a boot event log, byte for byte; that of no bytes where there is none.
    BootLogDigest, "boot log digest"
}
sha256_type! {
    /// Digest that names a container image (its manifest digest in a registry, or its image id in an engine).
    ImageDigest, "image digest"
}
sha256_type! {
    /// SHA-256 over all event digests of a log, in order.
    LogHead, "log head"
}
sha256_type! {
    /// SHA-256 of the `SubjectPublicKeyInfo` (DER) of the key of a TLS server.
    TlsKeyDigest, "TLS key digest"
}
sha256_type! {
    /// SHA-256 of the certificate (DER) of a TLS client.
    ClientDigest, "client certificate digest"
}
sha256_type! {
    /// SHA-256 of the canonical form of a certificate's `platform`.
    PlatformHash, "platform hash"
}
hash_type! {
    /// A git commit's object id (SHA-1 object format).
    CommitId, "git commit id", 20, "sha1:", "\"sha1:\" and 40 lowercase hexadecimal digits"
}
hash_type! {
    /// A challenge that makes a quote fresh; 32 bytes, in text plain lowercase hexadecimal.
    Nonce, "nonce", 32, "", "64 lowercase hexadecimal digits"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling() {
        let digest = FileDigest::of(b"abc");
        let text = digest.to_string();
        assert_eq!(
            text,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(text.parse(), Ok(digest));
        for wrong in [
            text.to_uppercase(),
            text[7..].to_owned(),
            format!("{text}0"),
            format!(" {text}"),
            text.replace("ba78", "BA78"),
        ] {
            assert!(wrong.parse::<FileDigest>().is_err(), "{wrong}");
        }
    }
}
