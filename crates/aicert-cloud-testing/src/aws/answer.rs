//! Answers of EC2 held to their model: a client must not get used to what Amazon would never say.

use roxmltree::{Document, Node};
use serde_json::Value;

use super::model::Model;

/// What moto says, and botocore of the same day does not know: its list of kinds of machines is newer.
const KNOWN: [&str; 1] = ["\"metal-compatibility\" is none of SupportedAdditionalProcessorFeature"];

/// What is wrong with an answer of `operation` that succeeded.
pub(crate) fn check(model: &Model, operation: &str, text: &str) -> Vec<String> {
    let output = model.operation(operation).and_then(|operation| operation.output);
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return vec![format!("the answer to {operation}: {error}")],
    };
    let mut problems = Vec::new();
    if let Some(output) = output {
        walk(model, output, document.root_element(), operation, &mut problems);
    }
    problems
}

fn walk(model: &Model, shape: &str, element: Node<'_, '_>, path: &str, problems: &mut Vec<String>) {
    match model.shape(shape)["type"].as_str() {
        Some("structure") => {
            for (name, member) in model.members(shape) {
                let wire = member.get("locationName").and_then(Value::as_str).unwrap_or(name);
                let of = member.get("shape").and_then(Value::as_str).unwrap_or_default();
                let found: Vec<_> = element
                    .children()
                    .filter(|child| child.has_tag_name(wire_name(child, wire)))
                    .collect();
                if found.len() > 1 {
                    problems.push(format!("the answer {path}.{wire} is there {} times", found.len()));
                }
                for child in found {
                    walk(model, of, child, &format!("{path}.{wire}"), problems);
                }
            }
        }
        Some("list") => {
            let of = model.shape(shape)["member"]["shape"].as_str().unwrap_or_default();
            for item in element.children().filter(|child| child.is_element()) {
                walk(model, of, item, path, problems);
            }
        }
        // An empty element is one that moto has nothing to say about.
        _ => match element.text() {
            Some(text) if !text.trim().is_empty() => {
                problems.extend(
                    model
                        .wrong(shape, text)
                        .filter(|wrong| !KNOWN.contains(&wrong.as_str()))
                        .map(|wrong| format!("the answer {path}: {wrong}")),
                );
            }
            _ => {}
        },
    }
}

/// A name in the namespace of the element.
fn wire_name<'a>(element: &Node<'a, '_>, name: &'a str) -> roxmltree::ExpandedName<'a, 'a> {
    match element.tag_name().namespace() {
        Some(namespace) => (namespace, name).into(),
        None => name.into(),
    }
}
