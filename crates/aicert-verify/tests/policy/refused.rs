//! What is refused, and how it is said.

use aicert_verify::policy::{Policy, PolicyError};
use proptest::prelude::*;

fn error(text: &str) -> PolicyError {
    match Policy::from_yaml(text) {
        Ok(policy) => panic!("{text}\nwas read as {policy:?}"),
        Err(error) => error,
    }
}

/// Asserts that a policy has one problem, there, with these words in its message or its help.
#[track_caller]
fn refused(text: &str, line: u32, column: u32, words: &[&str]) {
    let error = error(text);
    let [problem] = error.problems() else {
        panic!("{text}\n{error}");
    };
    assert_eq!((problem.line(), problem.column()), (line, column), "{error}");
    let said = format!("{} {}", problem.message(), problem.help().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn a_problem_is_shown_where_it_is() {
    let said = error("simulated: false\nfirmwares: any\n").render("my.yaml");
    assert_eq!(
        said,
        "my.yaml:2:1: unknown key `firmwares` in a policy
  |
2 | firmwares: any
  | ^^^^^^^^^
  = help: did you mean `firmware`?"
    );
}

#[test]
fn a_line_is_shown_whatever_ends_it() {
    for end in ["\n", "\r\n", "\r"] {
        let said = error(&format!("simulated: false{end}firmwares: any{end}")).render("my.yaml");
        assert!(said.contains("\n2 | firmwares: any\n"), "{said}");
    }
}

#[test]
fn all_problems_are_reported_in_order() {
    let error = error(
        "max_age: 30\nplatform: [azure]\ninputs: [{hash: abc}, {}, {nam: x}]\npackages: {pinned: {a b: 1}}\n",
    );
    let places: Vec<_> = error.problems().iter().map(|p| (p.line(), p.column())).collect();
    assert_eq!(
        places,
        [(1, 10), (2, 1), (3, 17), (3, 23), (3, 27), (3, 28), (4, 21)],
        "{error}"
    );
}

#[test]
fn unknown_keys_and_words_are_explained() {
    refused(
        "colour: red",
        1,
        1,
        &["unknown key `colour`", "platforms, simulated"],
    );
    refused("secureBoot: any", 1, 1, &["did you mean `secure_boot`?"]);
    refused(
        "inputs:\n  - {name: a, uri: b}",
        2,
        15,
        &["unknown key `uri` in an input", "`url`"],
    );
    refused("packages: {forbiden: [a]}", 1, 12, &["did you mean `forbidden`?"]);
    refused(
        "platforms: [azure-trusted-lunch]",
        1,
        13,
        &["did you mean `azure-trusted-launch`?"],
    );
    refused("platforms: [AZURE-TRUSTED-LAUNCH]", 1, 13, &["no platform"]);
    refused("firmware: Known", 1, 11, &["known or any", "`Known`"]);
    refused("secure_boot: true", 1, 14, &["any or required", "`true`"]);
    refused("other_inputs: no", 1, 15, &["allowed or refused"]);
    refused("\u{430}ny: 1", 1, 1, &["unknown key"]);
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    refused("simulated: 'false'", 1, 12, &["true or false", "a text"]);
    refused("simulated: no", 1, 12, &["true or false"]);
    refused("simulated: 0", 1, 12, &["a number"]);
    refused("simulated:", 1, 1, &["has no value"]);
    refused("images: aicert-base 0.2.0", 1, 9, &["a list of names of images"]);
    refused("images: [1.0]", 1, 10, &["is a text; this is a number"]);
    refused("images: [[a]]", 1, 10, &["this is a list"]);
    refused("inputs: {name: a}", 1, 9, &["a list of inputs", "a section"]);
    refused("inputs: [data]", 1, 10, &["a section with keys"]);
    refused("inputs: [{name: true}]", 1, 17, &["true or false"]);
    refused("packages: [a]", 1, 11, &["a section with keys"]);
    refused("packages: {pinned: [a]}", 1, 20, &["maps names"]);
    refused("packages: {pinned: {a: [1]}}", 1, 24, &["this is a list"]);
    refused("max_age: 30", 1, 10, &["no time span"]);
    refused("max_age: [30d]", 1, 10, &["this is a list"]);
    refused("- a", 1, 1, &["a policy is a section with keys"]);
    refused("allowed", 1, 1, &["a policy is a section with keys"]);
}

#[test]
fn rules_that_demand_nothing_or_the_impossible_are_refused() {
    for text in ["", "\n", "# only a remark\n", "null", "~", "---\n"] {
        refused(text, 1, 1, &["`{}`"]);
    }
    refused("platforms: []", 1, 12, &["is empty"]);
    refused("images: []", 1, 9, &["is empty"]);
    refused("images: ['']", 1, 10, &["is empty"]);
    refused("inputs: []", 1, 9, &["is empty"]);
    refused("inputs: [{}]", 1, 10, &["says nothing"]);
    refused("packages: {pinned: {}}", 1, 20, &["is empty"]);
    refused("platforms: [local-ca]", 1, 13, &["simulated: true"]);
    refused(
        "platforms: [local-ca]\nsimulated: false",
        1,
        13,
        &["simulated: true"],
    );
    refused("other_inputs: refused", 1, 15, &["every job has inputs"]);
    refused(
        "packages: {pinned: {a: '1.0'}, forbidden: [A]}",
        1,
        44,
        &["`pinned` demands it"],
    );
    refused(
        "packages: {pinned: {a: '1.0+x'}, forbidden: ['a==1']}",
        1,
        46,
        &["`pinned` demands it"],
    );
    assert!(Policy::from_yaml("packages: {pinned: {a: '1.0'}, forbidden: ['a==2']}").is_ok());
}

#[test]
fn names_that_deceive_are_refused() {
    refused("images: [\"aicert\\u202e-base\"]", 1, 10, &["not seen"]);
    refused("inputs: [{name: \"da\\u200bta\"}]", 1, 17, &["not seen"]);
    refused("packages: {forbidden: [numpу]}", 1, 24, &["U+0443"]);
    refused("packages: {pinned: {ｎumpy: '1'}}", 1, 21, &["U+FF4E"]);
    refused(
        "packages: {pinned: {Num_Py: '1', num-py: '2'}}",
        1,
        34,
        &["num-py is pinned twice"],
    );
    refused("packages: {pinned: {numpy: '>=1'}}", 1, 28, &["no version"]);
    refused(
        "packages: {forbidden: ['numpy>=1']}",
        1,
        24,
        &["neither a name nor `name==version`"],
    );
    refused("packages: {forbidden: [true]}", 1, 24, &["true or false"]);
    refused("inputs: [{hash: 'md5:0123'}]", 1, 17, &["no hash"]);
    refused(
        "inputs: [{hash: 'tree:sha1:0123456789abcdef0123456789abcdef01234567'}]",
        1,
        17,
        &["no hash"],
    );
}

#[test]
fn what_is_no_plain_yaml_is_refused() {
    refused(
        "simulated: true\nsimulated: false",
        2,
        1,
        &["`simulated` stands twice"],
    );
    refused(
        "packages: {pinned: {a: '1', a: '2'}}",
        1,
        29,
        &["`a` stands twice"],
    );
    refused("images: &a [x]\n", 1, 12, &["anchors"]);
    refused("images: *a", 1, 9, &["aliases"]);
    refused("---\n{}\n---\n{}", 4, 1, &["one document"]);
    for text in [
        "images:\n\t- x",
        "images: [x",
        "{",
        "images: !!binary eA==",
        "a: b: c",
        "\u{feff}\u{0}",
        "images: \"\\q\"",
        "? [a]\n: b",
    ] {
        let error = error(text);
        assert_eq!(error.problems().len(), 1, "{error}");
    }
    let merged = error("<<: {simulated: true}");
    assert!(!merged.to_string().is_empty());
}

/// Nothing in a policy expands, so nothing can be made to expand without end.
#[test]
fn bombs_do_not_go_off() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    refused(&bomb, 1, 9, &["anchors"]);
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        assert_eq!(error(&text).problems().len(), 1);
    }
    refused(&" ".repeat((1 << 20) + 1), 1, 1, &["larger than 1 MiB"]);
    let inputs = format!("inputs: [{}]", ["{name: a}"; 1001].join(", "));
    refused(&inputs, 1, 9, &["1001 inputs", "1000"]);
    // Of problems without end the first are said.
    let keys: String = (0..20_000).map(|number| format!("key{number}: 1\n")).collect();
    assert_eq!(error(&keys).problems().len(), 100);
    assert!(error(&keys).to_string().len() < 100_000);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = Policy::from_yaml(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(text in "[a-z:{}\\[\\]&*!|>'\"%@`#?, \n\t-]{0,80}") {
        let _ = Policy::from_yaml(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(section in 0..3_usize, key in 0..9_usize, value in "[ -~\n]{0,40}") {
        let (name, keys) = aicert_verify::policy::known_keys()[section];
        let key = keys[key % keys.len()];
        let text = match name {
            "input" => format!("inputs:\n  - {key}: {value}"),
            "packages" => format!("packages:\n  {key}: {value}"),
            _ => format!("{key}: {value}"),
        };
        if let Err(error) = Policy::from_yaml(&text) {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn damaged_policies_are_read_or_refused(at in 0..600_usize, with in any::<char>()) {
        let text = include_str!("../../../../examples/policies/model.yaml");
        let mut damaged: Vec<char> = text.chars().collect();
        let at = at % damaged.len();
        damaged[at] = with;
        let _ = Policy::from_yaml(&damaged.into_iter().collect::<String>()).map_err(|error| error.to_string());
    }
}
