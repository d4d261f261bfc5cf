//! Requests to EC2 (the query protocol `ec2` of botocore), and to EBS (`rest-json`), held to their models.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::model::{Model, Operation};

/// A request that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `ec2` or `ebs`.
    pub service: &'static str,
    /// What was called.
    pub operation: String,
    /// Its parameters, by their names on the wire (`TagSpecification.1.Tag.2.Key`).
    pub parameters: BTreeMap<String, String>,
}

impl Seen {
    /// A parameter, empty when it was not sent.
    pub fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// Reads a form.
pub(crate) fn form(body: &[u8]) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let spaces = text.replace('+', " ");
        percent_decode_str(&spaces).decode_utf8_lossy().into_owned()
    };
    String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// What is wrong with a request to EC2.
pub(crate) fn check(model: &Model, seen: &Seen) -> Vec<String> {
    let Some(operation) = model.operation(&seen.operation) else {
        return vec![format!("there is no operation {:?}", seen.operation)];
    };
    let mut root = Node::default();
    for (key, value) in &seen.parameters {
        if key != "Action" && key != "Version" {
            root.insert(key, value);
        }
    }
    let mut problems = Vec::new();
    if seen.get("Version") != "2016-11-15" {
        problems.push(format!("Version is {:?}", seen.get("Version")));
    }
    match operation.input {
        Some(input) => root.check(model, input, "", &mut problems),
        None if root.children.is_empty() => {}
        None => problems.push("it takes no parameters".into()),
    }
    problems
        .into_iter()
        .map(|problem| format!("{}: {problem}", seen.operation))
        .collect()
}

#[derive(Default)]
struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn insert(&mut self, key: &str, value: &str) {
        let mut node = self;
        for part in key.split('.') {
            node = node.children.entry(part.into()).or_default();
        }
        node.value = Some(value.into());
    }

    fn check(&self, model: &Model, shape: &str, path: &str, problems: &mut Vec<String>) {
        let kind = model.shape(shape)["type"].as_str().unwrap_or_default();
        match (kind, &self.value) {
            ("structure", None) => self.check_structure(model, shape, path, problems),
            ("list", None) => {
                let member = model.shape(shape)["member"]["shape"].as_str().unwrap_or_default();
                for (position, (number, node)) in self.sorted().into_iter().enumerate() {
                    if number != position + 1 {
                        problems.push(format!("{path}: the list has no number {}", position + 1));
                    }
                    node.check(model, member, &format!("{path}.{number}"), problems);
                }
            }
            (_, Some(value)) if self.children.is_empty() => {
                problems.extend(model.wrong(shape, value).map(|wrong| format!("{path}: {wrong}")));
            }
            _ => problems.push(format!("{path} is no {kind} ({shape})")),
        }
    }

    fn sorted(&self) -> Vec<(usize, &Node)> {
        let mut numbered: Vec<_> = self
            .children
            .iter()
            .map(|(number, node)| (number.parse().unwrap_or(0), node))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        numbered
    }

    fn check_structure(&self, model: &Model, shape: &str, path: &str, problems: &mut Vec<String>) {
        let mut known = BTreeMap::new();
        for (name, member) in model.members(shape) {
            // `EC2Serializer` of botocore.
            let wire = match (member.get("queryName"), member.get("locationName")) {
                (Some(Value::String(name)), _) => name.clone(),
                (_, Some(Value::String(name))) => {
                    let (first, rest) = name.split_at(1);
                    format!("{}{rest}", first.to_uppercase())
                }
                _ => name.to_owned(),
            };
            let of = member.get("shape").and_then(Value::as_str).unwrap_or_default();
            known.insert(wire, (name, of));
        }
        for (key, node) in &self.children {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match known.get(key) {
                Some((_, of)) => node.check(model, of, &path, problems),
                None => problems.push(format!("{path} is no parameter ({shape})")),
            }
        }
        for required in model.required(shape) {
            let sent = known
                .iter()
                .any(|(wire, (name, _))| *name == required && self.children.contains_key(wire));
            if !sent {
                problems.push(format!("{path}: {required} is missing ({shape})"));
            }
        }
    }
}

/// What operation of EBS a request calls, with what is in its path.
pub(crate) fn route<'a>(
    model: &'a Model,
    method: &str,
    path: &str,
) -> Option<(Operation<'a>, BTreeMap<String, String>)> {
    model.operations().find_map(|operation| {
        let asked: Vec<_> = path.split('/').collect();
        let pattern: Vec<_> = operation.path.split('/').collect();
        if operation.method != method || asked.len() != pattern.len() {
            return None;
        }
        let mut found = BTreeMap::new();
        for (asked, pattern) in asked.into_iter().zip(pattern) {
            match pattern.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => {
                    found.insert(
                        name.to_owned(),
                        percent_decode_str(asked).decode_utf8_lossy().into_owned(),
                    );
                }
                None if asked == pattern => {}
                None => return None,
            }
        }
        Some((operation, found))
    })
}

/// Reads a request to EBS, and says what is wrong with it.
pub(crate) fn read_rest(
    model: &Model,
    operation: &Operation<'_>,
    in_path: &BTreeMap<String, String>,
    headers: &HeaderMap,
    body: &[u8],
) -> (Seen, Vec<String>) {
    let input = operation.input.unwrap_or_default();
    let payload = model.shape(input)["payload"].as_str();
    let json: Value = match payload {
        Some(_) => Value::Null,
        None => serde_json::from_slice(body).unwrap_or(Value::Null),
    };
    let mut parameters = BTreeMap::new();
    let mut problems = Vec::new();
    let mut known = Vec::new();
    for (name, member) in model.members(input) {
        let text = |key: &str| member.get(key).and_then(Value::as_str);
        let wire = text("locationName").unwrap_or(name);
        let shape = text("shape").unwrap_or_default();
        let value = match text("location") {
            Some("uri") => in_path.get(wire).cloned(),
            Some("header") => headers
                .get(wire)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            Some(other) => {
                problems.push(format!("{name}: this proxy knows no {other}"));
                None
            }
            None if payload == Some(name) => {
                continue;
            }
            None => {
                known.push(wire);
                match &json[wire] {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    Value::Array(items) => {
                        for item in items {
                            let of = model.shape(shape)["member"]["shape"].as_str().unwrap_or_default();
                            problems
                                .extend(wrong_json(model, of, item).map(|wrong| format!("{name}: {wrong}")));
                        }
                        parameters.insert(wire.to_owned(), json[wire].to_string());
                        continue;
                    }
                    other => Some(other.to_string()),
                }
            }
        };
        match value {
            Some(value) => {
                problems.extend(model.wrong(shape, &value).map(|wrong| format!("{name}: {wrong}")));
                parameters.insert(name.to_owned(), value);
            }
            None if model.required(input).any(|required| required == name) => {
                problems.push(format!("{name} is missing"));
            }
            None => {}
        }
    }
    for key in json.as_object().into_iter().flat_map(|object| object.keys()) {
        if !known.contains(&key.as_str()) {
            problems.push(format!("{key} is no parameter ({input})"));
        }
    }
    let seen = Seen {
        service: "ebs",
        operation: operation.name.into(),
        parameters,
    };
    let problems = problems
        .into_iter()
        .map(|problem| format!("{}: {problem}", operation.name))
        .collect();
    (seen, problems)
}

/// What is wrong with a structure of texts, such as a tag.
fn wrong_json(model: &Model, shape: &str, value: &Value) -> Option<String> {
    let fields = value.as_object()?;
    fields.iter().find_map(|(key, value)| {
        let member = model.members(shape).find(|(name, _)| name == key);
        match (member, value.as_str()) {
            (Some((_, member)), Some(text)) => model.wrong(
                member.get("shape").and_then(Value::as_str).unwrap_or_default(),
                text,
            ),
            _ => Some(format!("{key} is no text of {shape}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::moto;

    /// What is wrong with a form.
    fn problems(form_text: &str) -> Option<Vec<String>> {
        let tools = moto::tools()?;
        let parameters = form(format!("{form_text}&Version=2016-11-15").as_bytes());
        let seen = Seen {
            service: "ec2",
            operation: parameters.get("Action").cloned().unwrap_or_default(),
            parameters,
        };
        Some(check(Model::ec2(&tools), &seen))
    }

    #[test]
    fn what_the_model_does_not_have_is_found() {
        const RUN: &str = "Action=RunInstances&MinCount=1&MaxCount=1";
        for (form, expected) in [
            (RUN.to_owned(), ""),
            ("Action=StartInstance".into(), "no operation"),
            ("Action=RunInstances&MinCount=1".into(), "MaxCount is missing"),
            (format!("{RUN}&MinCuont=1"), "MinCuont is no parameter"),
            (format!("{RUN}&MinCount=one"), "no integer"),
            (format!("{RUN}&EbsOptimized=yes"), "no boolean"),
            (
                format!("{RUN}&InstanceInitiatedShutdownBehavior=delete"),
                "none of ShutdownBehavior",
            ),
            (
                format!("{RUN}&MetadataOptions.HttpTokens=maybe"),
                "none of HttpTokensState",
            ),
            (format!("{RUN}&TagSpecification.1.ResourceType=instance"), ""),
            (
                format!("{RUN}&TagSpecification.2.ResourceType=instance"),
                "no number 1",
            ),
            (
                format!("{RUN}&TagSpecification.1.Tags.1.Key=a"),
                "Tags is no parameter",
            ),
            (format!("{RUN}&BlockDeviceMapping.1.Ebs=gp3"), "is a structure"),
        ] {
            let Some(problems) = problems(&form) else { return };
            match expected {
                "" => assert!(problems.is_empty(), "{form}: {problems:?}"),
                expected => assert!(
                    problems.iter().any(|problem| problem.contains(expected)),
                    "{form}: {problems:?}"
                ),
            }
        }
    }

    #[test]
    fn requests_to_ebs_are_held_to_their_model() {
        let Some(tools) = moto::tools() else { return };
        let model = Model::ebs(&tools);
        assert!(route(model, "POST", "/snapshots/snap-1/blocks/1").is_none());
        let (operation, in_path) = route(model, "PUT", "/snapshots/snap-1/blocks/7").unwrap();
        assert_eq!(operation.name, "PutSnapshotBlock");
        let headers = HeaderMap::new();
        let (seen, problems) = read_rest(model, &operation, &in_path, &headers, b"");
        assert_eq!((seen.get("SnapshotId"), seen.get("BlockIndex")), ("snap-1", "7"));
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("Checksum is missing")),
            "{problems:?}"
        );
        let (operation, in_path) = route(model, "POST", "/snapshots").unwrap();
        let body = br#"{"VolumeSize": 0, "Timeout": 5, "Color": "blue"}"#;
        let (_, problems) = read_rest(model, &operation, &in_path, &headers, body);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
