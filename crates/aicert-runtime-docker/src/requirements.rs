//! Requirements files, as far as aicert lets them through to pip.
//!
//! pip gets a file that is written anew from what was understood here, one requirement or option to a line. So no trick
//! with comments, continued lines or encodings makes pip see an option that was refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aicert_core::runtime::RuntimeErrorKind;

use crate::error::Fault;
use crate::wheel::normalize;

const SIZE_LIMIT: u64 = 1 << 20;

/// A requirements file that pip may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// What pip is given.
    pub(crate) text: String,
    /// How many requirements there are.
    pub(crate) count: usize,
    /// The version of every package that is pinned with `==`, by normalized name.
    pub(crate) pinned: BTreeMap<String, String>,
}

impl Requirements {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        let fault = |error| Fault::file("read the requirements file", path, error);
        let file = File::open(path).map_err(fault)?;
        let mut bytes = Vec::new();
        file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(refused(
                path,
                0,
                "it is larger than 1 MiB",
                "name only the packages that the job needs",
            ));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| refused(path, 0, "it is not UTF-8 text", "save it as UTF-8"))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Fault> {
        let mut parsed = Self {
            text: String::new(),
            count: 0,
            pinned: BTreeMap::new(),
        };
        for (number, line) in logical_lines(text.trim_start_matches('\u{feff}')) {
            let refuse = |refusal: Refusal| {
                refused(
                    path,
                    number,
                    &format!("{:?}: {}", without_credentials(&line), refusal.reason),
                    refusal.advice,
                )
            };
            if let Some(control) = line.chars().find(|c| c.is_control() && *c != '\t') {
                return Err(refuse(Refusal {
                    reason: format!("it has the control character {control:?}"),
                    advice: "remove it",
                }));
            }
            if line.ends_with('\\') {
                return Err(refuse(Refusal {
                    reason: "pip would take the next line for a part of it".to_owned(),
                    advice: "remove the backslash at its end",
                }));
            }
            if line.contains("${") {
                let reason = "pip would put an environment variable there, and none reaches it".to_owned();
                return Err(refuse(Refusal {
                    reason,
                    advice: "write the value; give credentials as `packageIndex` in the configuration",
                }));
            }
            if line.starts_with('-') {
                check_option(&line).map_err(refuse)?;
            } else {
                parsed.count += 1;
                if let Some((name, version)) = check_requirement(&line).map_err(refuse)? {
                    parsed.pinned.insert(name, version);
                }
            }
            parsed.text.push_str(&line);
            parsed.text.push('\n');
        }
        Ok(parsed)
    }
}

struct Refusal {
    reason: String,
    advice: &'static str,
}

fn refusal(reason: impl Into<String>, advice: &'static str) -> Refusal {
    Refusal {
        reason: reason.into(),
        advice,
    }
}

fn refused(path: &Path, line: usize, reason: &str, advice: &str) -> Fault {
    let file = path.file_name().unwrap_or(path.as_os_str()).display();
    let place = if line == 0 {
        file.to_string()
    } else {
        format!("{file}, line {line}")
    };
    Fault::told(
        RuntimeErrorKind::Dependencies,
        format!("{place}: {reason}"),
        advice,
    )
}

/// A line that can be shown: what stands between `://` and `@` is left out.
fn without_credentials(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace())
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                shown.push_str("[redacted]");
                &after[at..]
            }
            None => after,
        };
    }
    shown + rest
}

/// Lines without comments, continued ones joined, with the number of their first: pip's rules (requirements file format).
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#');
        let (line, continues) = match line.strip_suffix('\\') {
            Some(line) if !is_comment => (line, true),
            _ => (line, false),
        };
        let (_, joined) = open.get_or_insert_with(|| (index + 1, String::new()));
        if is_comment {
            // A comment ends what it continues.
            joined.push(' ');
        } else {
            joined.push_str(line);
        }
        if !continues {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    lines
        .into_iter()
        .map(|(number, line)| (number, without_comment(&line).trim().to_owned()))
        .filter(|(_, line)| !line.is_empty())
        .collect()
}

/// A `#` starts a comment at the start of a line or after white space; elsewhere it belongs to a URL.
fn without_comment(line: &str) -> &str {
    let comment = line
        .char_indices()
        .find(|&(at, c)| c == '#' && line[..at].chars().next_back().is_none_or(char::is_whitespace));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn check_option(line: &str) -> Result<(), Refusal> {
    let (name, value) = match line.split_once(|c: char| c == '=' || c.is_whitespace()) {
        Some((name, value)) => (name, value.trim()),
        None => (line, ""),
    };
    match name {
        "--pre" | "--prefer-binary" | "--require-hashes" if value.is_empty() => Ok(()),
        "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links" => check_url(value),
        "--only-binary" if value == ":all:" => Ok(()),
        "-r" | "--requirement" | "-c" | "--constraint" => Err(refusal(
            "other files are not seen when packages are resolved",
            "put everything into one file: `pip-compile` or `uv pip compile` does it",
        )),
        "-e" | "--editable" => Err(refusal(
            "only wheels are installed, and an editable package is not one",
            "import it from the source folder, or publish it as a wheel",
        )),
        "--no-binary" => Err(refusal(
            "only wheels are installed: building a package runs code of others outside the job",
            "leave this option out",
        )),
        "--trusted-host" => Err(refusal(
            "it would turn the check of the index's certificate off",
            "give the certificates to trust as a CA bundle in the configuration",
        )),
        _ => Err(refusal(
            "this option is not allowed",
            "allowed are --index-url, --extra-index-url, --find-links, --pre, --prefer-binary, --require-hashes and --hash",
        )),
    }
}

fn check_url(url: &str) -> Result<(), Refusal> {
    let advice =
        "use an https address without credentials; give credentials as `packageIndex` in the configuration";
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !url.contains(char::is_whitespace)) else {
        return Err(refusal("its address is none of http or https", advice));
    };
    if rest.split('/').next().unwrap_or_default().contains('@') {
        return Err(refusal(
            "its address has credentials, and this file is part of the proof's sources",
            advice,
        ));
    }
    Ok(())
}

/// Checks one requirement; returns name and version when it is pinned.
fn check_requirement(line: &str) -> Result<Option<(String, String)>, Refusal> {
    // Options of a single requirement come after it: only hashes are let through.
    let mut parts = line.split(" --");
    let requirement = parts.next().unwrap_or_default().trim();
    for option in parts {
        let value = option
            .strip_prefix("hash")
            .map(|rest| rest.trim_start_matches(['=', ' ']).trim());
        let fine = value.is_some_and(|value| {
            value.split_once(':').is_some_and(|(algorithm, digits)| {
                ["sha256", "sha384", "sha512"].contains(&algorithm)
                    && digits.bytes().all(|b| b.is_ascii_hexdigit())
            })
        });
        if !fine {
            return Err(refusal(
                format!(
                    "the option --{} of a requirement is not allowed",
                    option.split([' ', '=']).next().unwrap_or_default()
                ),
                "allowed is --hash=sha256:… alone",
            ));
        }
    }
    if let Some((name, url)) = requirement
        .split_once('@')
        .filter(|(_, rest)| rest.contains("://"))
    {
        if check_name(name.trim()).is_none() {
            return Err(not_a_requirement(requirement));
        }
        return check_wheel_url(url.trim().split(';').next().unwrap_or_default().trim()).map(|()| None);
    }
    if requirement.contains("://") {
        return check_wheel_url(requirement).map(|()| None);
    }
    let specification = requirement.split(';').next().unwrap_or_default();
    let end = specification
        .find(['=', '<', '>', '!', '~', '(', ' ', '['])
        .unwrap_or(specification.len());
    let (name, mut rest) = specification.split_at(end);
    let Some(name) = check_name(name) else {
        return Err(not_a_requirement(requirement));
    };
    rest = rest.trim();
    if let Some(extras) = rest.strip_prefix('[') {
        rest = extras.split_once(']').map_or("", |(_, rest)| rest.trim());
    }
    let version = rest
        .strip_prefix("==")
        .map(|version| version.trim_start_matches('=').trim());
    Ok(version
        .filter(|version| !version.is_empty() && !version.contains([',', '*', ' ']))
        .map(|version| (name, version.to_owned())))
}

/// Names of packages: PyPA specification "Names and normalization".
fn check_name(name: &str) -> Option<String> {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let fine = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && edge(name.bytes().next())
        && edge(name.bytes().next_back());
    let is_file = name.ends_with(".whl") || name.ends_with(".gz") || name.ends_with(".zip");
    (fine && !is_file).then(|| normalize(name))
}

fn not_a_requirement(requirement: &str) -> Refusal {
    if requirement.starts_with(['.', '/', '~'])
        || requirement.ends_with(".whl")
        || requirement.contains(['/', '\\'])
    {
        return refusal(
            "files of this machine are not seen when packages are resolved",
            "name a package of an index, or the https address of a wheel",
        );
    }
    refusal(
        "this is no requirement",
        "expected `name`, `name==version`, or `name @ https://…/file.whl`",
    )
}

fn check_wheel_url(url: &str) -> Result<(), Refusal> {
    if url.starts_with("git+") || url.starts_with("hg+") || url.starts_with("svn+") || url.starts_with("bzr+")
    {
        return Err(refusal(
            "only wheels are installed, and a repository is not one",
            "add the repository as an input of the job, or publish the package as a wheel",
        ));
    }
    check_url(url)?;
    let path = url.split(['?', '#']).next().unwrap_or_default();
    if !url.starts_with("https://") || !path.ends_with(".whl") {
        return Err(refusal(
            "only wheels from https addresses are installed",
            "name a package of an index, or the https address of a wheel (.whl)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Requirements, String> {
        Requirements::parse(Path::new("/job/requirements.txt"), text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn credentials_are_not_repeated() {
        for line in [
            "--index-url https://user:s3cr3t@host/simple",
            "numpy @ https://s3cr3t@host/numpy.whl",
            "--trusted-host http://a:s3cr3t@b@c/ https://x/",
        ] {
            let error = parse(line).unwrap_err();
            assert!(
                !error.contains("s3cr3t") && error.contains("[redacted]@"),
                "{error}"
            );
        }
        assert_eq!(
            without_credentials("a @ https://host/a@b.whl"),
            "a @ https://host/a@b.whl"
        );
    }

    #[test]
    fn what_pip_reads_is_what_was_understood() {
        let parsed = parse(concat!(
            "\u{feff}# header\r\nnumpy==2.1.3 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd  # why\n",
            "Foo.Bar[x,y] >= 1.0, <2 ; python_version < \"3.12\"\n--extra-index-url https://example.org/simple#frag\n\n",
            "direct @ https://example.org/direct-1.0-py3-none-any.whl#sha256=ab\nwild==1.*\ntorch === 2.5.0\n"
        ))
        .unwrap();
        assert_eq!(
            parsed.text,
            concat!(
                "numpy==2.1.3     --hash=sha256:ab     --hash=sha256:cd\n",
                "Foo.Bar[x,y] >= 1.0, <2 ; python_version < \"3.12\"\n--extra-index-url https://example.org/simple#frag\n",
                "direct @ https://example.org/direct-1.0-py3-none-any.whl#sha256=ab\nwild==1.*\ntorch === 2.5.0\n"
            )
        );
        assert_eq!(parsed.count, 5);
        let pinned: Vec<_> = parsed
            .pinned
            .iter()
            .map(|(name, version)| (name.as_str(), version.as_str()))
            .collect();
        assert_eq!(pinned, [("numpy", "2.1.3"), ("torch", "2.5.0")]);
        assert_eq!(parse("# nothing\n\n").unwrap().count, 0);
    }

    #[test]
    fn what_cannot_be_resolved_safely_is_refused_with_its_place() {
        for (line, reason) in [
            ("-r other.txt", "other files"),
            ("-rother.txt", "not allowed"),
            ("-c constraints.txt", "other files"),
            ("-e .", "editable"),
            ("--no-binary :all:", "only wheels"),
            ("--trusted-host example.org", "certificate"),
            ("--index-url https://user:pw@example.org/simple", "credentials"),
            ("--find-links /wheels", "none of http"),
            ("--config-settings=a=b", "not allowed"),
            ("numpy --no-binary :all:", "--no-binary"),
            ("numpy --global-option=--x", "--global-option"),
            ("./local.whl", "files of this machine"),
            ("local-1.0-py3-none-any.whl", "files of this machine"),
            ("git+https://example.org/x.git", "repository"),
            ("x @ git+ssh://git@example.org/x.git", "repository"),
            ("x @ https://example.org/x.tar.gz", "only wheels"),
            ("x @ http://example.org/x-1-py3-none-any.whl", "only wheels"),
            ("x @ file:///x-1-py3-none-any.whl", "none of http"),
            ("x==${VERSION}", "environment variable"),
            ("$(id)", "no requirement"),
            ("x\\\\", "the next line"),
            ("x \\ # continues nothing here", "the next line"),
            ("--pre \\\\", "the next line"),
        ] {
            let error = parse(&format!("numpy\n{line}\n")).unwrap_err();
            assert!(error.starts_with("requirements.txt, line 2: "), "{error}");
            assert!(error.contains(reason), "{line}: {error}");
        }
        // A comment cannot hide an option from one reader and show it to the other.
        assert!(parse("numpy # x \\\n--no-binary :all:\n").is_ok_and(|parsed| parsed.text == "numpy\n"));
        assert!(parse("# x \\\n--no-binary :all:\n").is_err());
    }

    proptest! {
        #[test]
        fn reading_is_total_and_stable(text in "(\\PC|[\\\\#\\n\\r\\t =@;\\[\\]-]){0,80}") {
            if let Ok(parsed) = parse(&text) {
                let again = parse(&parsed.text).unwrap();
                prop_assert_eq!(again.text, parsed.text);
                prop_assert_eq!(again.count, parsed.count);
            }
        }
    }
}
