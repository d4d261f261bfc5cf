//! Azure's operations and models as Microsoft's Python packages have them, and what differs from them.
//!
//! `scripts/test-tools/azure_tables.py` takes them out of `azure-mgmt-compute` 33.0.0 (machines 2024-07-01, disks 2024-03-02,
//! galleries 2023-07-03, sizes 2021-07-01: the versions that `azure_mgmt_compute` 0.21 sends with its feature `default_tag`),
//! `azure-mgmt-network` 28.1.0 (2024-05-01), `azure-mgmt-resource` 23.1.1 (2022-09-01) and `azure-mgmt-devtestlabs` 9.0.0
//! (2018-09-15), which are the newest that have the versions that aicert names.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

/// Everything that is published of what aicert uses.
#[derive(Debug)]
pub struct Definitions {
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Unit {
    name: String,
    operations: Vec<Operation>,
    models: HashMap<String, Vec<Attribute>>,
    enums: HashMap<String, Vec<String>>,
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    unit: usize,
    pub(super) id: String,
    pub(super) method: String,
    path: Vec<String>,
    api_version: String,
    query: Vec<String>,
    statuses: Vec<u16>,
    request: Option<String>,
    response: Option<String>,
}

#[derive(Debug)]
struct Attribute {
    path: Vec<String>,
    kind: String,
    required: bool,
    readonly: bool,
    values: Option<String>,
}

/// In which direction something goes: what only the service sets must not be sent, and need not be complete when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl Definitions {
    /// Those that `scripts/test-tools.sh` has written; nothing, with a message, when it was not run.
    ///
    /// # Panics
    ///
    /// When they are missing and `CI` is set, or cannot be read.
    pub fn find() -> Option<Self> {
        let tools = std::env::var_os("AICERT_TEST_TOOLS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools")),
            PathBuf::from,
        );
        let path = tools.join("definitions/azure.json");
        let Ok(bytes) = std::fs::read(&path) else {
            let message = format!("{} is missing: run scripts/test-tools.sh", path.display());
            assert!(std::env::var_os("CI").is_none(), "{message}");
            #[allow(clippy::print_stderr, reason = "for whoever runs the tests")]
            {
                eprintln!("skipped: {message}");
            }
            return None;
        };
        let value: Value = serde_json::from_slice(&bytes).expect("azure.json is JSON");
        Some(Self::read(&value).expect("azure.json is what azure_tables.py writes"))
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
        let texts = |value: &Value| -> Option<Vec<String>> {
            value
                .as_array()?
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        };
        let mut units = Vec::new();
        for (number, unit) in value.as_array()?.iter().enumerate() {
            let mut operations = Vec::new();
            for operation in unit.get("operations")?.as_array()? {
                let (Some(api_version), Some(path)) =
                    (text(operation, "api_version"), text(operation, "path"))
                else {
                    continue;
                };
                operations.push(Operation {
                    unit: number,
                    id: text(operation, "id")?,
                    method: text(operation, "method")?,
                    path: path.split('/').map(str::to_owned).collect(),
                    api_version,
                    query: texts(operation.get("query")?)?,
                    statuses: operation
                        .get("statuses")?
                        .as_array()?
                        .iter()
                        .filter_map(|status| u16::try_from(status.as_u64()?).ok())
                        .collect(),
                    request: text(operation, "request"),
                    response: text(operation, "response"),
                });
            }
            let mut models = HashMap::new();
            for (name, attributes) in unit.get("models")?.as_object()? {
                let mut read = Vec::new();
                for attribute in attributes.as_array()? {
                    let is = |key| attribute.get(key).and_then(Value::as_bool).unwrap_or(false);
                    read.push(Attribute {
                        path: texts(attribute.get("path")?)?,
                        kind: text(attribute, "type")?,
                        required: is("required"),
                        readonly: is("readonly"),
                        values: text(attribute, "enum"),
                    });
                }
                models.insert(name.clone(), read);
            }
            let mut enums = HashMap::new();
            for (name, values) in unit.get("enums")?.as_object()? {
                // The values of a few are numbers; nothing here uses them.
                if let Some(values) = texts(values) {
                    enums.insert(name.clone(), values);
                }
            }
            units.push(Unit {
                name: text(unit, "name")?,
                operations,
                models,
                enums,
            });
        }
        Some(Self { units })
    }

    /// The operation that a request is of.
    pub(super) fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        let segments: Vec<&str> = path.split('/').collect();
        self.units
            .iter()
            .flat_map(|unit| &unit.operations)
            .find(|operation| {
                operation.method == method
                    && operation.path.len() == segments.len()
                    && operation.path.iter().zip(&segments).all(|(template, found)| {
                        (template.starts_with('{') && !found.is_empty()) || template == found
                    })
            })
            .cloned()
    }

    /// What is wrong with a request.
    pub(super) fn check_request(
        &self,
        operation: &Operation,
        query: &[(String, String)],
        body: &[u8],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let version = query
            .iter()
            .find(|(key, _)| key == "api-version")
            .map(|(_, value)| value.as_str());
        if version != Some(&operation.api_version) {
            wrong.push(format!(
                "api-version is {version:?}, and published is {}",
                operation.api_version
            ));
        }
        for (key, _) in query {
            // Links to next pages are the service's own.
            if !operation.query.contains(key) && key != "$skiptoken" {
                wrong.push(format!("the parameter {key} is not published"));
            }
        }
        match (&operation.request, body.is_empty()) {
            (None, true) => {}
            (None, false) => wrong.push("a body, and none is published".into()),
            (Some(_), true) => wrong.push("no body".into()),
            (Some(kind), false) => match serde_json::from_slice(body) {
                Ok(value) => self.check(
                    operation.unit,
                    kind,
                    None,
                    &value,
                    "",
                    Direction::Request,
                    &mut wrong,
                ),
                Err(error) => wrong.push(format!("a body that is no JSON: {error}")),
            },
        }
        wrong
    }

    /// What is wrong with an answer that is no error.
    pub(super) fn check_response(
        &self,
        operation: &Operation,
        status: u16,
        body: Option<&Value>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if !operation.statuses.contains(&status) {
            wrong.push(format!(
                "status {status}, and published are {:?}",
                operation.statuses
            ));
        }
        if let (Some(kind), Some(value)) = (&operation.response, body) {
            self.check(
                operation.unit,
                kind,
                None,
                value,
                "",
                Direction::Response,
                &mut wrong,
            );
        }
        wrong
    }

    #[allow(clippy::too_many_arguments, reason = "a walk over two trees")]
    fn check(
        &self,
        unit: usize,
        kind: &str,
        values: Option<&str>,
        value: &Value,
        at: &str,
        direction: Direction,
        wrong: &mut Vec<String>,
    ) {
        let mut expect = |is: bool| {
            if !is {
                wrong.push(format!("{at} is {value}, and published is {kind}"));
            }
        };
        if let Some(inner) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            expect(value.is_array());
            for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                self.check(
                    unit,
                    inner,
                    values,
                    item,
                    &format!("{at}[{number}]"),
                    direction,
                    wrong,
                );
            }
            return;
        }
        if let Some(inner) = kind.strip_prefix('{').and_then(|kind| kind.strip_suffix('}')) {
            expect(value.is_object());
            for (key, item) in value.as_object().into_iter().flatten() {
                self.check(
                    unit,
                    inner,
                    values,
                    item,
                    &format!("{at}.{key}"),
                    direction,
                    wrong,
                );
            }
            return;
        }
        match kind {
            "str" => {
                expect(value.is_string());
                // The list of sizes has been given up by its makers: "deprecated", and all newer ones are missing.
                if let (Some(name), Some(text)) = (
                    values.filter(|name| *name != "VirtualMachineSizeTypes"),
                    value.as_str(),
                ) && let Some(known) = self.units[unit].enums.get(name)
                    && !known.iter().any(|known| known == text)
                {
                    wrong.push(format!("{at} is {text:?}, and published are {known:?}"));
                }
            }
            "int" | "long" => expect(value.is_i64() || value.is_u64()),
            "float" => expect(value.is_number()),
            "bool" => expect(value.is_boolean()),
            "iso-8601" | "rfc-1123" | "date" | "duration" | "base64" | "bytearray" => {
                expect(value.is_string())
            }
            "object" | "JSON" => {}
            model => match self.units[unit].models.get(model) {
                None => wrong.push(format!("{at}: {} has no model {model}", self.units[unit].name)),
                Some(attributes) => {
                    let all: Vec<(&[String], &Attribute)> = attributes
                        .iter()
                        .map(|attribute| (attribute.path.as_slice(), attribute))
                        .collect();
                    self.check_object(unit, &all, value, at, direction, wrong);
                }
            },
        }
    }

    fn check_object(
        &self,
        unit: usize,
        attributes: &[(&[String], &Attribute)],
        value: &Value,
        at: &str,
        direction: Direction,
        wrong: &mut Vec<String>,
    ) {
        let Some(object) = value.as_object() else {
            wrong.push(format!("{at} is {value}, and published is an object"));
            return;
        };
        for (key, item) in object {
            let at = format!("{at}.{key}");
            let here: Vec<(&[String], &Attribute)> = attributes
                .iter()
                .filter(|(path, _)| path.first() == Some(key))
                .map(|(path, attribute)| (&path[1..], *attribute))
                .collect();
            match here.as_slice() {
                [] => wrong.push(format!("{at} is not published")),
                [([], attribute)] => {
                    if item.is_null() {
                        wrong.push(format!("{at} is null"));
                    } else if direction == Direction::Request && attribute.readonly {
                        wrong.push(format!("{at} is only the service's to set"));
                    } else {
                        self.check(
                            unit,
                            &attribute.kind,
                            attribute.values.as_deref(),
                            item,
                            &at,
                            direction,
                            wrong,
                        );
                    }
                }
                inner => self.check_object(unit, inner, item, &at, direction, wrong),
            }
        }
        if direction == Direction::Response {
            return;
        }
        for (path, attribute) in attributes {
            if attribute.required
                && !attribute.readonly
                && path.first().is_none_or(|key| !object.contains_key(key))
            {
                wrong.push(format!("{at}.{} is missing", path.join(".")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers/";

    fn checked(kind: &str, body: &Value) -> Option<Vec<String>> {
        let definitions = Definitions::find()?;
        let path = format!("{GROUP}{kind}/x");
        let operation = definitions.operation("PUT", &path).expect("published");
        let query = [("api-version".to_owned(), operation.api_version.clone())];
        Some(definitions.check_request(&operation, &query, body.to_string().as_bytes()))
    }

    #[test]
    fn what_is_not_published_is_told() {
        let kind = "Microsoft.Compute/disks";
        let good = json!({ "location": "l", "properties": { "creationData": { "createOption": "Upload", "uploadSizeBytes": 5 } } });
        let Some(wrong) = checked(kind, &good) else { return };
        assert!(wrong.is_empty(), "{wrong:?}");
        let cases = [
            ("/location", json!(5), "published is str"),
            (
                "/properties/creationData/createOption",
                json!("Uplod"),
                "published are",
            ),
            (
                "/properties/creationData/uploadSizeBytes",
                json!("5"),
                "published is int",
            ),
            (
                "/properties/provisioningState",
                json!("Succeeded"),
                "only the service's",
            ),
            ("/properties/size", json!(5), "not published"),
            ("/properties/creationData", Value::Null, "is null"),
        ];
        for (at, value, expected) in cases {
            let mut bad = good.clone();
            let (parent, key) = at.rsplit_once('/').unwrap();
            bad.pointer_mut(parent).unwrap()[key] = value;
            let wrong = checked(kind, &bad).unwrap();
            assert!(
                wrong.iter().any(|wrong| wrong.contains(expected)),
                "{at}: {wrong:?}"
            );
        }
        let wrong = checked(kind, &json!({ "properties": {} })).unwrap();
        assert!(
            wrong.iter().any(|wrong| wrong.contains("location is missing")),
            "{wrong:?}"
        );
    }
}
