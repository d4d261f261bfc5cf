//! The documentation, the examples and the JSON Schema say the same as the code.

use std::collections::BTreeSet;
use std::path::Path;

use aicert_verify::policy::{Policy, known_keys};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../../../schema/policy.schema.json");
const PAGE: &str = include_str!("../../../../docs/policy.md");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Whether the schema and the code accept a policy: they must agree.
fn verdicts(text: &str) -> (Result<(), String>, Result<(), String>) {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let by_schema = serde_saphyr::from_str::<Value>(text)
        .map_err(|error| error.to_string())
        .and_then(|value| validator.validate(&value).map_err(|error| error.to_string()));
    let by_code = Policy::from_yaml(text)
        .map(drop)
        .map_err(|error| error.to_string());
    (by_schema, by_code)
}

#[test]
fn the_keys_are_the_same() {
    let schema = schema();
    for (section, keys) in known_keys() {
        let pointer = match section {
            "" => "/properties".to_owned(),
            "input" => "/properties/inputs/items/properties".to_owned(),
            section => format!("/properties/{section}/properties"),
        };
        let described: BTreeSet<_> = schema
            .pointer(&pointer)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(described, keys.iter().copied().collect(), "section {section:?}");
        for key in keys {
            assert!(
                PAGE.contains(&format!("`{key}`")),
                "docs/policy.md does not name `{key}`"
            );
        }
    }
}

#[test]
fn the_page_and_the_examples_are_accepted_by_both() {
    let mut texts: Vec<String> = PAGE
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect();
    assert!(!texts.is_empty(), "the page has no example");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    for entry in std::fs::read_dir(examples).unwrap() {
        texts.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert!(texts.len() > 3, "there are no examples");
    for text in texts {
        assert_eq!(verdicts(&text), (Ok(()), Ok(())), "{text}");
    }
}

#[test]
fn schema_and_code_agree() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let good = [
        "{}".to_owned(),
        "platforms: [gce-shielded-vm]".into(),
        "{platforms: [local-ca], simulated: true}".into(),
        "images: [a]".into(),
        "firmware: any".into(),
        "secure_boot: required".into(),
        "inputs: [{name: a}, {url: 'https://x.org'}]".into(),
        "{inputs: [{name: a}], other_inputs: refused}".into(),
        "other_inputs: allowed".into(),
        format!("inputs: [{{hash: {COMMIT}}}, {{hash: 'sha1:{COMMIT}'}}]"),
        format!(
            "inputs: [{{hash: {SHA256}}}, {{hash: 'SHA256:{SHA256}'}}, {{hash: 'tree:sha256:{SHA256}'}}]"
        ),
        format!("inputs: [{{hash: 'tree:{SHA256}'}}]"),
        "packages: {}".into(),
        "packages: {forbidden: [a, 'B.c==1.0', 'd == v1!2.0rc1+cpu']}".into(),
        "packages: {pinned: {a: '1.0', b_c: 1.10, d: 2}}".into(),
        "packages: {others: refused}".into(),
        "max_age: 30d".into(),
        "max_age: 1d2h3m4s".into(),
    ];
    for text in good {
        assert_eq!(verdicts(&text), (Ok(()), Ok(())), "{text}");
    }
    let bad = [
        "[]".to_owned(),
        "text".into(),
        "colour: red".into(),
        "platforms: []".into(),
        "platforms: [aws]".into(),
        "platforms: gce-shielded-vm".into(),
        "platforms: [local-ca]".into(),
        "{platforms: [local-ca], simulated: false}".into(),
        "simulated: 'true'".into(),
        "simulated:".into(),
        "images: []".into(),
        "images: [1]".into(),
        "images: ['']".into(),
        "images: [' ']".into(),
        "firmware: none".into(),
        "secure_boot: true".into(),
        "inputs: []".into(),
        "inputs: [{}]".into(),
        "inputs: [a]".into(),
        "inputs: [{uri: a}]".into(),
        "inputs: [{name: 1}]".into(),
        "inputs: [{hash: abc}]".into(),
        format!("inputs: [{{hash: 'sha1:{SHA256}'}}]"),
        format!("inputs: [{{hash: 'sha256:{COMMIT}'}}]"),
        format!("inputs: [{{hash: 'tree:{COMMIT}'}}]"),
        "other_inputs: refused".into(),
        "{inputs: [{name: a}], other_inputs: no}".into(),
        "packages: [a]".into(),
        "packages: {forbidden: []}".into(),
        "packages: {forbidden: ['a>1']}".into(),
        "packages: {forbidden: ['a==*']}".into(),
        "packages: {forbidden: ['-a']}".into(),
        "packages: {forbidden: ['numpу']}".into(),
        "packages: {pinned: {}}".into(),
        "packages: {pinned: {a: x}}".into(),
        "packages: {pinned: {a: '==1'}}".into(),
        "packages: {pinned: {-a: '1'}}".into(),
        "packages: {others: some}".into(),
        "packages: {required: [a]}".into(),
        "max_age: 30".into(),
        "max_age: ''".into(),
        "max_age: 1h1d".into(),
        "max_age: 30 days".into(),
    ];
    for text in bad {
        let (by_schema, by_code) = verdicts(&text);
        assert!(by_code.is_err(), "the code accepts\n{text}");
        assert!(by_schema.is_err(), "the schema accepts\n{text}");
    }
}
