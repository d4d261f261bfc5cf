//! Values that must never be shown.

use std::fmt;

use zeroize::Zeroizing;

/// A token, password or key: wiped from memory when dropped, never serialized, shown as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Gives the value to code that must send it somewhere.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Removes every occurrence of the secret from a text that is about to be shown or stored.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() {
            text.to_owned()
        } else {
            text.replace(self.0.as_str(), "[redacted]")
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(
            secret.redact("https://u:hunter2@host/"),
            "https://u:[redacted]@host/"
        );
    }
}
