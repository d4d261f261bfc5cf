//! Names of packages, and what is demanded of them.

use std::fmt;
use std::str::FromStr;

use super::version;

/// Says why a text names no package, or no version of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// It is no name.
    #[error(
        "{found:?} is no name of a package: letters, digits, `-`, `_` and `.`, the first and last a letter or digit"
    )]
    Name {
        /// What was found.
        found: String,
    },
    /// It has letters that are not those that packages are named with, however they look.
    #[error("{found:?} holds {character:?} (U+{:04X}), which is in no name of a package", u32::from(*.character))]
    Letter {
        /// What was found.
        found: String,
        /// The first of them.
        character: char,
    },
    /// It is no version.
    #[error("{found:?} is no version: expected one such as 1.26.4 (PEP 440), without `*`")]
    Version {
        /// What was found.
        found: String,
    },
    /// It compares versions in another way than for being equal.
    #[error("{found:?} is neither a name nor `name==version`")]
    Operator {
        /// What was found.
        found: String,
    },
}

/// The name of a package, normalised as in PEP 503: `Num_Py`, `num.py` and `num-py` are one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(String);

impl FromStr for PackageName {
    type Err = PackageError;

    /// Reads a name in any spelling (PyPA, "Names and normalization").
    fn from_str(text: &str) -> Result<Self, PackageError> {
        let found = || text.chars().take(60).collect();
        if let Some(character) = text.chars().find(|c| !c.is_ascii()) {
            return Err(PackageError::Letter {
                found: found(),
                character,
            });
        }
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        if bytes.len() <= 200 && bytes.iter().all(|b| inner(*b)) && ends(bytes.first()) && ends(bytes.last())
        {
            Ok(Self::of_log(text))
        } else {
            Err(PackageError::Name { found: found() })
        }
    }
}

impl PackageName {
    /// Normalises a name from the log. Logs have names in lowercase already, but may repeat `-`.
    pub(crate) fn of_log(name: &str) -> Self {
        let mut normal = String::with_capacity(name.len());
        for character in name.chars() {
            let separates = matches!(character, '-' | '_' | '.');
            if !separates {
                normal.push(character.to_ascii_lowercase());
            } else if !normal.ends_with('-') {
                normal.push('-');
            }
        }
        Self(normal)
    }

    /// The normalised name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version of a package. Two spellings of one version are equal (PEP 440): `1.0`, `1.0.0` and `v1.0`.
#[derive(Debug, Clone)]
pub struct PackageVersion {
    text: String,
    parts: version::Parts,
}

impl FromStr for PackageVersion {
    type Err = PackageError;

    fn from_str(text: &str) -> Result<Self, PackageError> {
        match version::parse(text) {
            Some(parts) => Ok(Self {
                text: text.trim().to_owned(),
                parts,
            }),
            None => Err(PackageError::Version {
                found: text.chars().take(60).collect(),
            }),
        }
    }
}

impl PackageVersion {
    /// Whether a version of the log is this one, local label included: a pin means exactly what it says.
    pub(crate) fn is(&self, found: &Self) -> bool {
        self.parts == found.parts
    }

    /// Whether a version of the log is this one or a local variant of it, as `==` has it (PEP 440, "Version matching"):
    /// forbidding 1.0 forbids 1.0+cpu.
    pub(crate) fn covers(&self, found: &Self) -> bool {
        self.parts.public == found.parts.public
            && (self.parts.local.is_none() || self.parts.local == found.parts.local)
    }
}

impl PartialEq for PackageVersion {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for PackageVersion {}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A package that must not be there: in any version, or in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForbiddenPackage {
    /// Its name.
    pub name: PackageName,
    /// The version; every version when absent. A version without a local label stands for those with one as well.
    pub version: Option<PackageVersion>,
}

impl FromStr for ForbiddenPackage {
    type Err = PackageError;

    /// Reads `name` or `name==version`.
    fn from_str(text: &str) -> Result<Self, PackageError> {
        let (name, version) = match text.split_once("==") {
            Some((name, version)) => (name, Some(version.parse()?)),
            None => (text, None),
        };
        let name = name.trim();
        if name.contains(['<', '>', '=', '~', '!', ',', ';', '[', '@']) {
            return Err(PackageError::Operator {
                found: text.chars().take(60).collect(),
            });
        }
        Ok(Self {
            name: name.parse()?,
            version,
        })
    }
}

impl fmt::Display for ForbiddenPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}=={version}", self.name),
            None => self.name.fmt(f),
        }
    }
}
