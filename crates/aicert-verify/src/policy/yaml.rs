//! Reads a policy: everything is checked here, once, and all problems are reported together, each with its line and
//! column.

mod values;

use std::collections::btree_map;
use std::time::Duration;

use aicert_core::certificate::PlatformKind;
use aicert_core::event::INPUT_LIMIT;
use aicert_core::yaml::{Document, Kind, Node, Place, Problems, Section, Value, similar_or};

pub use aicert_core::yaml::{DocumentError as PolicyError, Problem as PolicyProblem};
use values::Text;

use super::{
    FirmwareRule, InputRule, Others, PLATFORMS, PackageName, PackageRules, PackageVersion, Policy,
    SecureBootRule,
};
use crate::anchors::platform_name;
use crate::input::InputHash;

const DOCUMENT: Document = Document {
    name: "policy",
    file: "policy",
    twice: Some("which of the two counts would be a guess: remove one"),
    // A policy has none: what it demands stands in a proof, which everybody may read.
    secret: |_| false,
};

const KEYS: &[&str] = &[
    "platforms",
    "simulated",
    "images",
    "firmware",
    "secure_boot",
    "inputs",
    "other_inputs",
    "packages",
    "max_age",
];
const INPUT_KEYS: &[&str] = &["name", "url", "hash"];
const PACKAGE_KEYS: &[&str] = &["forbidden", "pinned", "others"];

const OTHERS: &[(&str, Others)] = &[("allowed", Others::Allowed), ("refused", Others::Refused)];

/// No certificate is valid for longer.
const AGE_LIMIT: u64 = 200 * 366 * 86_400;

/// Names every key of a policy with the section it is in: what the JSON Schema is held to.
pub fn known_keys() -> [(&'static str, &'static [&'static str]); 3] {
    [("", KEYS), ("input", INPUT_KEYS), ("packages", PACKAGE_KEYS)]
}

impl Policy {
    /// Reads a policy in YAML; `docs/policy.md` describes its keys.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the order of the file.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        DOCUMENT.read(text, read)
    }
}

/// Reads the whole file; what is wrong is noted, and is then missing from the result.
fn read(problems: &Problems, root: &Node) -> Option<Policy> {
    if matches!(root.value, Value::Null) {
        problems.note(
            Place::START,
            "the policy is empty",
            "write `{}` for the strict default",
        );
        return None;
    }
    let section = Section::of(problems, root, "a policy", KEYS)?;
    let mut policy = Policy::default();
    if let Some(node) = section.node("simulated") {
        policy.simulated = values::boolean(problems, node, "`simulated`").unwrap_or_default();
    }
    if let Some(node) = section.node("platforms") {
        let may_be_simulated =
            policy.simulated || section.entry("simulated").is_some_and(|e| !is_false(&e.node));
        policy.platforms = Some(platforms(problems, node, may_be_simulated));
    }
    if let Some(node) = section.node("images") {
        let images = values::list(problems, node, "`images`", "names of images");
        let names = images
            .iter()
            .filter_map(|item| values::text(problems, item, "the name of an image", false));
        policy.images = Some(names.map(|name| name.text.to_owned()).collect());
    }
    if let Some(node) = section.node("firmware") {
        let choices = &[("known", FirmwareRule::Known), ("any", FirmwareRule::Any)];
        policy.firmware = values::choice(problems, node, "`firmware`", choices).unwrap_or_default();
    }
    if let Some(node) = section.node("secure_boot") {
        let choices = &[
            ("any", SecureBootRule::Any),
            ("required", SecureBootRule::Required),
        ];
        policy.secure_boot = values::choice(problems, node, "`secure_boot`", choices).unwrap_or_default();
    }
    if let Some(node) = section.node("inputs") {
        policy.inputs = inputs(problems, node);
    }
    if let Some(node) = section.node("other_inputs") {
        policy.other_inputs = values::choice(problems, node, "`other_inputs`", OTHERS);
        if policy.other_inputs == Some(Others::Refused) && section.entry("inputs").is_none() {
            problems.note(
                node.place,
                "`other_inputs: refused` without `inputs` would refuse every proof: every job has inputs",
                "list the inputs that are allowed in `inputs`",
            );
        }
    }
    if let Some(node) = section.node("packages") {
        policy.packages = packages(problems, node).unwrap_or_default();
    }
    if let Some(node) = section.node("max_age") {
        policy.max_age = max_age(problems, node);
    }
    Some(policy)
}

/// Whether a value says `false`; what cannot be read was noted already and is no reason for a second problem.
fn is_false(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { text, kind: Kind::Boolean } if text.eq_ignore_ascii_case("false"))
}

fn platforms(problems: &Problems, node: &Node, may_be_simulated: bool) -> Vec<PlatformKind> {
    let names = PLATFORMS.map(|kind| (platform_name(kind), kind));
    let items = values::list(problems, node, "`platforms`", "platforms");
    let texts = items
        .iter()
        .filter_map(|item| values::text(problems, item, "a platform", false));
    let mut platforms = Vec::new();
    for text in texts {
        match names.iter().find(|(name, _)| *name == text.text) {
            Some((name, kind)) if kind.is_simulated() && !may_be_simulated => problems.note(
                text.place,
                format!("`{name}` is a simulated platform, which this policy does not allow"),
                "say `simulated: true` as well, if it is meant",
            ),
            Some((_, kind)) => platforms.push(*kind),
            None => {
                let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                problems.note(
                    text.place,
                    format!("{:?} is no platform", shown(text)),
                    similar_or(text.text, &known, || {
                        format!("the platforms are {}", known.join(", "))
                    }),
                );
            }
        }
    }
    platforms
}

fn inputs(problems: &Problems, node: &Node) -> Vec<InputRule> {
    let items = values::list(problems, node, "`inputs`", "inputs");
    if items.len() > INPUT_LIMIT {
        problems.note(
            node.place,
            format!(
                "`inputs` lists {} inputs; no job has more than {INPUT_LIMIT}",
                items.len()
            ),
            "remove those that no job needs",
        );
        return Vec::new();
    }
    items.iter().filter_map(|item| input(problems, item)).collect()
}

fn input(problems: &Problems, node: &Node) -> Option<InputRule> {
    let section = Section::of(problems, node, "an input", INPUT_KEYS)?;
    if INPUT_KEYS.iter().all(|key| section.entry(key).is_none()) {
        problems.note(
            section.place(),
            "this input says nothing that could hold of one",
            "give its `name`, its `url` or, best, its `hash`",
        );
        return None;
    }
    let text = |key: &str| values::text(problems, section.node(key)?, &format!("`{key}`"), false);
    // A hash of digits alone can look like a number.
    let hash = section
        .node("hash")
        .and_then(|node| values::text(problems, node, "`hash`", true))
        .and_then(|text| match text.text.parse::<InputHash>() {
            Ok(hash) => Some(hash),
            Err(_) => {
                problems.note(
                    text.place,
                    format!("{:?} is no hash", shown(text)),
                    "write `sha1:` with 40 hexadecimal digits (a git commit), `sha256:` with 64 (a file) or `tree:sha256:` with 64 (the root of a tree)",
                );
                None
            }
        });
    // What could not be read was noted, and the policy will not be used.
    Some(InputRule {
        name: text("name").map(|text| text.text.to_owned()),
        url: text("url").map(|text| text.text.to_owned()),
        hash,
    })
}

fn packages(problems: &Problems, node: &Node) -> Option<PackageRules> {
    let section = Section::of(problems, node, "`packages`", PACKAGE_KEYS)?;
    let mut rules = PackageRules::default();
    if let Some(node) = section.node("pinned") {
        pinned(problems, node, &mut rules);
    }
    if let Some(node) = section.node("forbidden") {
        for item in values::list(problems, node, "`forbidden`", "packages") {
            forbidden(problems, item, &mut rules);
        }
    }
    if let Some(node) = section.node("others") {
        rules.others = values::choice(problems, node, "`others`", OTHERS).unwrap_or_default();
    }
    Some(rules)
}

fn pinned(problems: &Problems, node: &Node, rules: &mut PackageRules) {
    let Value::Map(entries) = &node.value else {
        problems.note(
            node.place,
            format!(
                "`pinned` maps names of packages to versions; this is {}",
                node.value.kind()
            ),
            "write it as `{numpy: \"1.26.4\"}`",
        );
        return;
    };
    if entries.is_empty() {
        problems.note(
            node.place,
            "`pinned` is empty",
            "remove the key if nothing is demanded",
        );
    }
    for entry in entries {
        let name = match entry.key.parse::<PackageName>() {
            Ok(name) => name,
            Err(error) => {
                problems.note(
                    entry.place,
                    error.to_string(),
                    "write its name in letters, digits and `-`",
                );
                continue;
            }
        };
        let Some(text) = values::text(problems, &entry.node, "a version", true) else {
            continue;
        };
        let version = match text.text.parse::<PackageVersion>() {
            Ok(version) => version,
            Err(error) => {
                problems.note(text.place, error.to_string(), "pin one exact version");
                continue;
            }
        };
        match rules.pinned.entry(name) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(version);
            }
            btree_map::Entry::Occupied(other) => problems.note(
                entry.place,
                format!("the package {} is pinned twice", other.key()),
                "names that differ in case, or in `-`, `_` and `.`, are one name: remove one",
            ),
        }
    }
}

fn forbidden(problems: &Problems, node: &Node, rules: &mut PackageRules) {
    let Some(text) = values::text(problems, node, "a package", false) else {
        return;
    };
    let package = match text.text.parse::<super::ForbiddenPackage>() {
        Ok(package) => package,
        Err(error) => {
            problems.note(
                text.place,
                error.to_string(),
                "write `name` to forbid every version, or `\"name==1.2.3\"`",
            );
            return;
        }
    };
    let pin = rules.pinned.get(&package.name);
    let contradicts =
        pin.is_some_and(|pin| package.version.as_ref().is_none_or(|version| version.covers(pin)));
    if contradicts {
        problems.note(
            text.place,
            format!("{package} is forbidden, and `pinned` demands it"),
            "no job can do both: remove one",
        );
    }
    rules.forbidden.push(package);
}

fn max_age(problems: &Problems, node: &Node) -> Option<Duration> {
    let text = values::text(problems, node, "`max_age`", true)?;
    let age = duration(text.text);
    if age.is_none() {
        problems.note(
            text.place,
            format!("{:?} is no time span", shown(text)),
            "write it with its unit: `30d`, `12h`, `1d12h`; units are d, h, m and s",
        );
    }
    age
}

/// A time span: `90s`, `30m`, `2h`, `1d`, or several of them, larger units first.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds, mut largest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let mut tail = tail.chars();
        let unit = match tail.next()? {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        if unit >= largest {
            return None;
        }
        largest = unit;
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail.as_str();
    }
    (1..=AGE_LIMIT)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

fn shown(text: Text<'_>) -> String {
    text.text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::super::inspect::span;
    use super::*;

    #[test]
    fn spans_have_units() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("1d12h", 129_600),
            ("90s", 90),
            ("1h30m5s", 5_405),
            ("036h", 129_600),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in [
            "",
            "30",
            "d",
            "0d",
            "30D",
            "1.5d",
            "-1d",
            "12h1d",
            "1d1d",
            "1w",
            "1 d",
            "99999999999999999999d",
            "100000d",
            "１d",
            "1d\u{200b}",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!(span(Duration::from_secs(129_665)), "1d12h1m5s");
        assert_eq!(span(Duration::ZERO), "0s");
    }

    /// A platform that is added to proofs must be added to policies, too.
    #[test]
    fn every_platform_can_be_named() {
        let error = serde_json::from_str::<PlatformKind>("\"?\"")
            .unwrap_err()
            .to_string();
        let known = error.matches('`').count() / 2 - 1;
        assert_eq!(known, PLATFORMS.len(), "{error}");
        for kind in PLATFORMS {
            assert!(error.contains(&format!("`{}`", platform_name(kind))), "{error}");
        }
    }
}
