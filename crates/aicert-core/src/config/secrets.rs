//! Recognizes secrets that stand where everybody would read them: the certificate names every URL, argument and
//! environment variable of a job.

/// Parameters of a URL's query that carry a credential, in lowercase.
const QUERY_KEYS: [&str; 14] = [
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "key",
    "password",
    "private_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-signature",
];

/// How tokens of well-known services begin, and how long they are at least.
const TOKENS: [(&str, usize, &str); 13] = [
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 40, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("hf_", 30, "a Hugging Face token"),
    ("sk-", 32, "an API key"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("AKIA", 20, "an AWS access key"),
    ("ASIA", 20, "an AWS access key"),
    ("pypi-", 40, "a PyPI token"),
    ("npm_", 36, "an npm token"),
];

/// What secret a URL carries, if it does: a password or token before the host, or a signature in the query.
pub(super) fn in_url(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if let Some((user, _)) = rest[..end].rsplit_once('@') {
        // A user name is part of every SSH address; over HTTP it is a token.
        let is_ssh = scheme.eq_ignore_ascii_case("ssh") || scheme.to_ascii_lowercase().ends_with("+ssh");
        if user.contains(':') || !is_ssh {
            return Some("a user name, password or token before the host");
        }
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    query
        .split(['&', ';'])
        .filter_map(|pair| pair.split_once('='))
        .any(|(key, value)| !value.is_empty() && QUERY_KEYS.contains(&key.to_ascii_lowercase().as_str()))
        .then_some("a token or signature in its query")
}

/// What secret a text holds, if it is one of a well-known form.
pub(super) fn in_text(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    for word in text.split(|c: char| c.is_whitespace() || "\"'`,;()[]{}<>=".contains(c)) {
        if let Some(found) = in_url(word) {
            return Some(found);
        }
        for (prefix, length, what) in TOKENS {
            if !word.starts_with(prefix) {
                continue;
            }
            let token = word
                .bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                .count();
            if token >= length {
                return Some(what);
            }
        }
    }
    // `?token=…` was cut at its `=` above.
    text.split_whitespace().find_map(|word| {
        let start = word.find("http")?;
        in_url(word[start..].trim_matches(['"', '\'', ',', ']', '}']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognized_and_ordinary_text_is_not() {
        for secret in [
            "https://user:pass@host/x",
            "https://token@host/x.git",
            "ssh://git:pass@host/x",
            "url: \"https://host/a?x=1&X-Amz-Signature=abc\"",
            "- {url: https://host/a?token=abc}",
            "API: hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "--key=AKIAIOSFODNN7EXAMPLE",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(in_text(secret).is_some(), "{secret}");
        }
        for plain in [
            "ssh://git@host/x",
            "git@host:x/y.git",
            "https://host/@scope/name",
            "https://host/a?v=1&page=2",
            "hf_model",
            "sk-learn",
            "tokens: 5",
            "<pad>",
        ] {
            assert!(in_text(plain).is_none(), "{plain}");
        }
    }
}
