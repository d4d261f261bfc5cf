//! The role files allow what is called, on what it concerns, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use aicert_cloud_testing::aws::Seen;
use aicert_core::cloud::{CloudProvider as _, ImagePublisher as _};
use serde_json::Value;

use crate::publish::{disk, order};
use crate::scene::{Scene, machine, request};

const AICERT: &str = include_str!("../../roles/aicert.json");
const PUBLISHER: &str = include_str!("../../roles/publisher.json");

/// What is authorized with a request: an action, on a kind of resource (Service Authorization Reference, "Amazon EC2" and "Amazon
/// Elastic Block Store").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    action: String,
    /// `snapshot`, …; `*` for actions that concern nothing in particular.
    kind: String,
    /// The condition keys that the request has.
    keys: BTreeMap<String, BTreeSet<String>>,
}

impl Asked {
    fn new(action: impl Into<String>, kind: &str) -> Self {
        Self {
            action: action.into(),
            kind: kind.into(),
            keys: BTreeMap::new(),
        }
    }

    fn with(mut self, key: impl Into<String>, value: &str) -> Self {
        self.keys.entry(key.into()).or_default().insert(value.into());
        self
    }

    /// On something that aicert has made.
    fn own(self) -> Self {
        self.with("aws:ResourceTag/aicert-owner", "ada")
    }

    /// With tags for what is made, or marked.
    fn tagging<'a>(self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        tags.into_iter().fold(self, |asked, (key, value)| {
            asked
                .with(format!("aws:RequestTag/{key}"), value)
                .with("aws:TagKeys", key)
        })
    }
}

/// A text, or several.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        value => vec![value.as_str().unwrap()],
    }
}

fn statements(role: &str) -> Vec<Value> {
    let role: Value = serde_json::from_str(role).unwrap();
    role["Statement"].as_array().unwrap().clone()
}

/// The kind of resource that a pattern is for.
fn kind(pattern: &str) -> &str {
    match pattern {
        "*" => "*",
        pattern => pattern.rsplit_once(':').unwrap().1.strip_suffix("/*").unwrap(),
    }
}

/// Whether a statement allows something (IAM, "Policy evaluation logic"; the operators that occur here, and no others).
fn allows(statement: &Value, asked: &Asked) -> bool {
    assert_eq!(statement["Effect"], "Allow");
    let holds = |operator: &str, key: &str, expected: &Value| {
        let expected = texts(expected);
        let found = asked.keys.get(key);
        match operator {
            "Null" => found.is_none().to_string() == expected[0],
            "StringEquals" => {
                found.is_some_and(|found| found.iter().any(|value| expected.contains(&value.as_str())))
            }
            "ForAllValues:StringEquals" => {
                found.is_none_or(|found| found.iter().all(|value| expected.contains(&value.as_str())))
            }
            other => panic!("{other} is not known here"),
        }
    };
    let mut conditions = statement["Condition"].as_object().into_iter().flatten();
    texts(&statement["Action"]).contains(&asked.action.as_str())
        && texts(&statement["Resource"])
            .iter()
            .any(|pattern| kind(pattern) == asked.kind)
        && conditions.all(|(operator, keys)| {
            let mut keys = keys.as_object().unwrap().iter();
            keys.all(|(key, expected)| holds(operator, key, expected))
        })
}

/// What a request needs, were everything that it concerns made by aicert, but for images and networks that machines are made from.
pub(crate) fn asked(seen: &Seen) -> Vec<Asked> {
    let operation = seen.operation.as_str();
    let action = format!("{}:{operation}", seen.service);
    if operation.starts_with("Describe") && operation != "DescribeInstanceAttribute" {
        return vec![Asked::new(action, "*")];
    }
    let on = |kind: &str| Asked::new(&action, kind);
    let mut asked = match operation {
        "DescribeInstanceAttribute" | "GetConsoleOutput" | "TerminateInstances" => vec![on("instance").own()],
        "AuthorizeSecurityGroupIngress" | "RevokeSecurityGroupIngress" | "DeleteSecurityGroup" => {
            vec![on("security-group").own()]
        }
        "CreateSecurityGroup" => vec![on("vpc")],
        "RunInstances" => vec![
            on("image"),
            on("snapshot"),
            on("subnet"),
            on("security-group").own(),
        ],
        "PutSnapshotBlock" | "CompleteSnapshot" | "DeleteSnapshot" | "RegisterImage" => {
            vec![on("snapshot").own()]
        }
        "DeregisterImage" => vec![on("image").own()],
        "CreateTags" => {
            let tag = (seen.get("Tag.1.Key"), seen.get("Tag.1.Value"));
            assert_eq!(seen.get("Tag.2.Key"), "");
            vec![on("snapshot").own().tagging([tag])]
        }
        "StartSnapshot" => Vec::new(),
        other => panic!("{other} is not known here"),
    };
    // What is made with tags is tagged by whoever makes it.
    for (made, tags) in tags(seen) {
        let tags = || tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        asked.push(on(&made).tagging(tags()));
        let tag = Asked::new("ec2:CreateTags", &made).with("ec2:CreateAction", operation);
        asked.push(tag.tagging(tags()));
    }
    asked
}

/// The tags of what a request makes, by its kind.
fn tags(seen: &Seen) -> Vec<(String, Vec<(String, String)>)> {
    if seen.operation == "StartSnapshot" {
        let tags: Vec<Value> = serde_json::from_str(seen.get("Tags")).unwrap();
        let text = |tag: &Value, key: &str| tag[key].as_str().unwrap().to_owned();
        let tags = tags.iter().map(|tag| (text(tag, "Key"), text(tag, "Value")));
        return vec![("snapshot".into(), tags.collect())];
    }
    let mut made = Vec::new();
    for number in 1.. {
        let prefix = format!("TagSpecification.{number}");
        let kind = seen.get(&format!("{prefix}.ResourceType"));
        if kind.is_empty() {
            break;
        }
        let of = |tag: usize, part: &str| seen.get(&format!("{prefix}.Tag.{tag}.{part}")).to_owned();
        let tags = (1..).map(|tag| (of(tag, "Key"), of(tag, "Value")));
        made.push((
            kind.to_owned(),
            tags.take_while(|(key, _)| !key.is_empty()).collect(),
        ));
    }
    made
}

/// Nothing was called that no role allows.
pub(crate) fn assert_within(requests: &[Seen]) {
    let statements: Vec<_> = [AICERT, PUBLISHER].into_iter().flat_map(statements).collect();
    for asked in requests.iter().flat_map(asked) {
        assert!(
            statements.iter().any(|statement| allows(statement, &asked)),
            "{asked:?} is in no role"
        );
    }
}

/// A role allows all of it; and each action that it allows on a kind of resource is there for something that was called.
fn assert_exact(role: &str, requests: &[Seen]) {
    let statements = statements(role);
    let asked: BTreeSet<_> = requests.iter().flat_map(asked).collect();
    for asked in &asked {
        assert!(
            statements.iter().any(|statement| allows(statement, asked)),
            "{asked:?} is not allowed"
        );
    }
    for statement in &statements {
        for action in texts(&statement["Action"]) {
            for pattern in texts(&statement["Resource"]) {
                let mut needed = asked
                    .iter()
                    .filter(|asked| asked.action == action && asked.kind == kind(pattern));
                assert!(
                    needed.any(|asked| allows(statement, asked)),
                    "nothing needs {action} on {pattern}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_what_is_called() {
    let Some(scene) = Scene::new().await else { return };
    let mut spot = machine(&scene.image);
    spot.machine.spot = true;
    let provider = aicert_cloud_aws::AwsProvider::new(scene.config().with_machine(spot));
    let machine = provider.provision(request("role")).await.unwrap();
    let mut other = request("role");
    other.access = vec!["198.51.100.0/24".parse().unwrap()];
    provider.provision(other).await.unwrap();
    provider.list().await.unwrap();
    assert!(provider.is_running(&machine.id).await.unwrap());
    assert!(!provider.console_log(&machine.id).await.unwrap().is_empty());
    provider.destroy(&machine.id).await.unwrap();
    // The same without a subnet is allowed the one that EC2 takes.
    assert_exact(AICERT, &scene.cloud.requests());

    let from = scene.cloud.requests().len();
    let folder = tempfile::tempdir().unwrap();
    let publisher = scene.publisher();
    publisher.publish(order(&disk(folder.path(), 3))).await.unwrap();
    publisher.discard("aicert-0.1.0").await.unwrap();
    assert_exact(PUBLISHER, &scene.cloud.requests()[from..]);
    scene.assert_nothing_left().await;
}

#[test]
fn what_others_have_made_cannot_be_touched() {
    let on = Asked::new;
    let owned = [("aicert-owner", "ada")];
    let mut forbidden = vec![
        // Nothing is made without tags, and nothing from what is not aicert's.
        on("ebs:StartSnapshot", "snapshot"),
        on("ec2:RegisterImage", "image"),
        on("ec2:RegisterImage", "snapshot").tagging(owned),
        on("ec2:RunInstances", "instance"),
        on("ec2:RunInstances", "security-group").tagging(owned),
        on("ec2:CreateSecurityGroup", "security-group"),
        // How far it is may be noted, and nothing else.
        on("ec2:CreateTags", "snapshot").own().tagging(owned),
        on("ec2:CreateTags", "snapshot").tagging([("aicert-written", "1")]),
        on("ec2:CreateTags", "snapshot")
            .with("ec2:CreateAction", "StartSnapshot")
            .tagging([("Name", "other")]),
    ];
    for kind in [
        "instance",
        "volume",
        "network-interface",
        "security-group",
        "snapshot",
        "image",
    ] {
        // A tag would make it aicert's.
        forbidden.push(on("ec2:CreateTags", kind).tagging(owned));
        forbidden.push(on("ec2:CreateTags", kind).own().tagging(owned));
    }
    for (action, kind) in [
        ("ec2:TerminateInstances", "instance"),
        ("ec2:DescribeInstanceAttribute", "instance"),
        ("ec2:GetConsoleOutput", "instance"),
        ("ec2:DeleteSecurityGroup", "security-group"),
        ("ec2:AuthorizeSecurityGroupIngress", "security-group"),
        ("ec2:RevokeSecurityGroupIngress", "security-group"),
        ("ebs:PutSnapshotBlock", "snapshot"),
        ("ebs:CompleteSnapshot", "snapshot"),
        ("ec2:DeleteSnapshot", "snapshot"),
        ("ec2:DeregisterImage", "image"),
    ] {
        forbidden.push(on(action, kind));
    }
    for statement in statements(AICERT).iter().chain(&statements(PUBLISHER)) {
        for asked in &forbidden {
            assert!(!allows(statement, asked), "{}: {asked:?}", statement["Sid"]);
        }
    }
}
