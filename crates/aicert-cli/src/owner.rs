//! Whose machines in clouds are this user's.

use std::env;

use aicert_cloud_common::Owner;

use crate::error::Failure;

/// The environment variable that says so.
const VARIABLE: &str = "AICERT_OWNER";
/// How much of the names of user and computer is taken: owners have at most 60 characters.
const USER_LENGTH: usize = 24;
const HOST_LENGTH: usize = 32;

/// Who the environment says that this is; else the user of this computer, by both their names.
pub(crate) fn owner() -> Result<Owner, Failure> {
    if let Some(text) = set(VARIABLE) {
        return text.parse().map_err(|error| {
            Failure::misuse(format!("{VARIABLE} names nobody"))
                .because(&error)
                .help("it says whose machines in clouds are yours, on every computer that you use")
        });
    }
    let user = set("USER").or_else(|| set("LOGNAME"));
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::geteuid().as_raw()));
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    derived(&user, &host).parse().map_err(|error| {
        Failure::misuse("nobody can say whose machines are yours")
            .because(&error)
            .help(format!(
                "set {VARIABLE} to a name of lowercase letters, digits and `-`"
            ))
    })
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A name that every cloud takes. The domain of a computer changes with the network that it is in, and does not count.
fn derived(user: &str, host: &str) -> String {
    let user = plain(user, USER_LENGTH);
    let host = plain(host.split('.').next().unwrap_or_default(), HOST_LENGTH);
    let name = match (&*user, &*host) {
        ("", "") => "unknown".to_owned(),
        ("", name) | (name, "") => name.to_owned(),
        (user, host) => format!("{user}-{host}"),
    };
    if name.starts_with(|first: char| first.is_ascii_lowercase()) {
        name
    } else {
        format!("u-{name}")
    }
}

fn plain(text: &str, length: usize) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let text: String = text.chars().map(plain).take(length).collect();
    text.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_of_every_computer_is_somebody() {
        for (user, host, expected) in [
            ("ada", "laptop", "ada-laptop"),
            ("Ada.Lovelace", "Laptop.local", "ada-lovelace-laptop"),
            ("1000", "host", "u-1000-host"),
            ("", "", "unknown"),
            ("größe", "_", "gr--e"),
            (
                &"u".repeat(99),
                &"h".repeat(99),
                &format!("{}-{}", "u".repeat(24), "h".repeat(32)),
            ),
        ] {
            let name = derived(user, host);
            assert_eq!(name, expected);
            assert!(name.parse::<Owner>().is_ok(), "{name}");
        }
    }
}
