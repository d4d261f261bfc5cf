//! What pip's failures mean, in words that say what to do.

use aicert_core::runtime::RuntimeErrorKind;

use crate::error::Fault;
use crate::pip::Said;

/// Why pip could not download; `log` is what it wrote to its log file, where it says more than it prints.
pub(crate) fn download(said: &Said, log: &str) -> Fault {
    let text = said.tail.join("\n");
    let has = |sign: &str| text.contains(sign);
    let answered = |status: &str| {
        let error = format!("{status} Client Error");
        has(&error)
            || log
                .lines()
                .any(|line| line.contains("Could not fetch URL") && line.contains(&error))
    };
    let fault = |kind, what: &str, advice: &str| Fault::told(kind, told(what, said), advice);
    let dependencies = |what: &str, advice: &str| fault(RuntimeErrorKind::Dependencies, what, advice);

    if has("No module named pip") || has("No module named 'pip'") {
        return dependencies(
            "the image has no pip",
            "use an image with Python and pip, or leave the requirements file out",
        );
    }
    if has("No space left on device") {
        return fault(
            RuntimeErrorKind::Storage,
            "the disk is full",
            "free some space and try again",
        );
    }
    if has("CERTIFICATE_VERIFY_FAILED") || log.contains("CERTIFICATE_VERIFY_FAILED") {
        return dependencies(
            "the certificate of the package index is not trusted",
            "give the certificates to trust as a CA bundle (SSL_CERT_FILE, or `packageIndex` in the configuration)",
        );
    }
    if answered("401") || answered("403") || answered("407") {
        return dependencies(
            "the package index or proxy asks for credentials, or refuses those it got",
            "check the credentials of `packageIndex` and of the proxy",
        );
    }
    if said.connection {
        return dependencies(
            "the package index cannot be reached",
            "check its address, and the network and proxy of this machine",
        );
    }
    if has("ResolutionImpossible") || has("conflicting dependencies") {
        return dependencies(
            "the requirements contradict each other",
            "loosen one of the versions that pip names",
        );
    }
    if has("DO NOT MATCH THE HASHES") {
        return dependencies(
            "a package is not the one whose hash the requirements file has",
            "check where it comes from before you change the hash",
        );
    }
    if has("--require-hashes mode") {
        return dependencies(
            "with a hash for one package there must be a version and a hash for every package, dependencies included",
            "let `pip-compile --generate-hashes` or `uv pip compile --generate-hashes` write the file",
        );
    }
    match missing(&text) {
        Some((name, _)) if answered("404") => dependencies(
            &format!("the package index has no package {name:?}"),
            "check the spelling; a package of your own must be on the index that `packageIndex` names",
        ),
        Some((name, true)) if log.contains("No sources permitted") => dependencies(
            &format!("the package {name:?} has no wheel for this Python and this machine, only source"),
            "nothing is built from source here: build a wheel and put it on an index, choose a version with a wheel, or use \
             an image that has the package",
        ),
        Some((name, _)) => dependencies(
            &format!("there is no wheel of {name:?} for this Python and this machine"),
            "choose one of the versions that pip lists, or another version of Python",
        ),
        None => dependencies("the packages could not be downloaded", "see what pip said"),
    }
}

/// The requirement that pip found nothing for, and whether it found no version of it at all.
fn missing(text: &str) -> Option<(&str, bool)> {
    let (_, rest) = text.split_once("No matching distribution found for ")?;
    let name = rest.split(['\n', ' ', ';']).next()?;
    Some((name, text.contains("(from versions: none)")))
}

/// A message with pip's last lines.
pub(crate) fn told(what: &str, said: &Said) -> String {
    format!(
        "{what} (pip ended with status {}); pip said last:\n  {}",
        said.exit_code,
        said.tail.join("\n  ")
    )
}

/// Whether a line of pip's tells of a connection that failed.
pub(crate) fn is_connection(line: &str) -> bool {
    let signs = [
        "Retrying (Retry",
        "NewConnectionError",
        "Max retries exceeded",
        "ProxyError",
        "Connection refused",
        "Read timed out",
    ];
    signs.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(lines: &str, log: &str) -> String {
        let tail: Vec<_> = lines.lines().map(str::to_owned).collect();
        let connection = tail.iter().any(|line| is_connection(line));
        download(
            &Said {
                exit_code: 1,
                tail,
                connection,
            },
            log,
        )
        .to_string()
    }

    #[test]
    fn failures_are_told_apart() {
        let missing = "ERROR: Could not find a version that satisfies the requirement nope==1 (from versions: none)\n\
                       ERROR: No matching distribution found for nope==1";
        let not_fetched =
            |status| format!("x Could not fetch URL https://e.org/simple/nope/: {status} Client Error: x");
        let sources = "Skipping link: No sources permitted for nope: https://e.org/nope-1.tar.gz";
        let retry = format!(
            "WARNING: Retrying (Retry(total=2)) after connection broken by 'NewConnectionError'\n{missing}"
        );
        for (lines, log, start) in [
            (missing, String::new(), "there is no wheel of \"nope==1\""),
            (
                missing,
                not_fetched(404),
                "the package index has no package \"nope==1\"",
            ),
            (missing, sources.into(), "the package \"nope==1\" has no wheel"),
            (
                missing,
                not_fetched(401),
                "the package index or proxy asks for credentials",
            ),
            (
                missing,
                not_fetched(403),
                "the package index or proxy asks for credentials",
            ),
            (&retry, String::new(), "the package index cannot be reached"),
            (
                &retry,
                "SSLError(CERTIFICATE_VERIFY_FAILED)".into(),
                "the certificate",
            ),
            (
                "/usr/bin/python3: No module named pip",
                String::new(),
                "the image has no pip",
            ),
            ("what?", String::new(), "the packages could not be downloaded"),
        ] {
            let told = failure(lines, &log);
            assert!(told.starts_with(start), "{told}");
            assert!(told.contains(lines.lines().last().unwrap()), "{told}");
        }
        // A number that only looks like a status is none: ports and versions have such numbers, too.
        assert!(
            failure(&missing.replace('1', "401"), "https://e.org:40301/").starts_with("there is no wheel")
        );
    }
}
