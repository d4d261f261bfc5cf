//! Checking SSH host keys against `known_hosts` files (`sshd(8)`, section "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! libgit2 has a check of its own, which knows one file alone, and no `@revoked` keys.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What the files say about the key that a host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// The host is not in the files, or only with keys of these other kinds.
    Unknown {
        /// The kinds that are known.
        other_kinds: Vec<String>,
    },
    /// The host is known with another key of this kind.
    Changed,
    /// The key must not be used any more.
    Revoked,
}

/// Looks a host key (as on the wire, RFC 4253, section 6.6) up in the contents of `known_hosts` files.
pub(super) fn check<'a>(
    files: impl IntoIterator<Item = &'a str>,
    host: &str,
    port: u16,
    key: &[u8],
) -> Verdict {
    let name = lookup_name(host, port);
    let kind = kind(key);
    let (mut known, mut changed, mut other_kinds) = (false, false, Vec::new());
    for line in files.into_iter().flat_map(str::lines) {
        let Some(entry) = Entry::parse(line) else { continue };
        if !entry.matches(&name) {
            continue;
        }
        match entry.marker {
            Some("@revoked") if entry.key == key => return Verdict::Revoked,
            // Certificates of authorities, and markers to come, make no key known by itself.
            Some(_) => {}
            None if entry.key == key => known = true,
            None if Some(entry.kind) == kind.as_deref() => changed = true,
            None => other_kinds.push(entry.kind.to_owned()),
        }
    }
    match (known, changed) {
        (true, _) => Verdict::Known,
        (false, true) => Verdict::Changed,
        (false, false) => Verdict::Unknown { other_kinds },
    }
}

/// How OpenSSH shows a key: `SHA256:` and base64.
pub(super) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// The kind of a key as on the wire, such as `ssh-ed25519`.
pub(super) fn kind(key: &[u8]) -> Option<String> {
    let (len, rest) = key.split_first_chunk::<4>()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    String::from_utf8(name.to_vec()).ok()
}

/// The name under which a host is in the files.
pub(super) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

struct Entry<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    kind: &'a str,
    key: Vec<u8>,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        let (marker, hosts) = if first.starts_with('@') {
            (Some(first), words.next()?)
        } else {
            (None, first)
        };
        let kind = words.next()?;
        let key = STANDARD.decode(words.next()?).ok()?;
        Some(Self {
            marker,
            hosts,
            kind,
            key,
        })
    }

    fn matches(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return matches_hash(hashed, name).unwrap_or(false);
        }
        let mut found = false;
        for pattern in self.hosts.split(',') {
            match pattern.strip_prefix('!') {
                Some(negated) if matches_pattern(negated, name) => return false,
                Some(_) => {}
                None => found |= matches_pattern(pattern, name),
            }
        }
        found
    }
}

/// `salt|hash`: the HMAC-SHA1 of the name, with the salt as its key.
fn matches_hash(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(hash).ok()?).is_ok())
}

/// `*` stands for any characters, `?` for one.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase().into_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last `*` does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, n) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(kind: &str, body: u8) -> Vec<u8> {
        let mut key = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        key.extend(kind.bytes());
        key.extend([0, 0, 0, 1, body]);
        key
    }

    fn line(hosts: &str, key: &[u8]) -> String {
        format!(
            "{hosts} {} {} comment\n",
            kind(key).unwrap(),
            STANDARD.encode(key)
        )
    }

    #[test]
    fn host_keys_are_known_unknown_changed_or_revoked() {
        let (ours, other, rsa) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2), key("ssh-rsa", 3));
        let unknown = || Verdict::Unknown {
            other_kinds: Vec::new(),
        };
        for (file, host, port, verdict) in [
            (line("host", &ours), "HOST", 22, Verdict::Known),
            (line("[host]:2222", &ours), "host", 2222, Verdict::Known),
            (line("host", &ours), "host", 2222, unknown()),
            (
                line("a,*.example.org,b", &ours),
                "x.example.org",
                22,
                Verdict::Known,
            ),
            (
                line("*.example.org,!x.example.org", &ours),
                "x.example.org",
                22,
                unknown(),
            ),
            (line("h?st", &ours), "host", 22, Verdict::Known),
            (line("host", &other), "host", 22, Verdict::Changed),
            (
                line("host", &other) + &line("host", &ours),
                "host",
                22,
                Verdict::Known,
            ),
            (
                line("host", &rsa),
                "host",
                22,
                Verdict::Unknown {
                    other_kinds: vec!["ssh-rsa".into()],
                },
            ),
            (
                line("host", &ours) + &line("@revoked *", &ours),
                "host",
                22,
                Verdict::Revoked,
            ),
            (line("@cert-authority host", &ours), "host", 22, unknown()),
            (
                String::from("# host\n\nhost ssh-ed25519\nhost ssh-ed25519 !!!\n"),
                "host",
                22,
                unknown(),
            ),
        ] {
            assert_eq!(check([file.as_str()], host, port, &ours), verdict, "{file}");
        }
    }

    #[test]
    fn hashed_names_as_ssh_keygen_writes_them() {
        // `ssh-keygen -H` over "example.org": the salt and the HMAC-SHA1 were computed with Python's hmac module.
        let ours = key("ssh-ed25519", 1);
        let hashed = "|1|AAECAwQFBgcICQoLDA0ODxAREhM=|bFDVYqbsfLlUB0fPAZemUYx8Gnc=";
        let file = line(hashed, &ours);
        assert_eq!(check([file.as_str()], "example.org", 22, &ours), Verdict::Known);
        assert_eq!(
            check([file.as_str()], "example.com", 22, &ours),
            Verdict::Unknown { other_kinds: vec![] }
        );
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_panic(file in "\\PC{0,60}", key in proptest::collection::vec(any::<u8>(), 0..20)) {
            let verdict = check([file.as_str()], "host", 22, &key);
            prop_assert_ne!(verdict, Verdict::Known);
            let _ = fingerprint(&key);
        }

        #[test]
        fn patterns_match_as_defined(pattern in "[ab*?]{0,6}", name in "[ab]{0,6}") {
            fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => by_definition(rest, name)
                        || name.split_first().is_some_and(|(_, tail)| by_definition(pattern, tail)),
                    (Some((c, rest)), Some((n, tail))) => (*c == b'?' || c == n) && by_definition(rest, tail),
                    _ => false,
                }
            }
            prop_assert_eq!(matches_pattern(&pattern, &name), by_definition(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
