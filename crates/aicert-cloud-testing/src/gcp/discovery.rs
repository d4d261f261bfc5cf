//! Google's discovery documents: what requests and answers of an API look like.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::{Map, Value};

/// Parameters that every Google API takes and that discovery documents do not list: `$alt` and `$apiVersion` ("System
/// parameters", <https://cloud.google.com/apis/docs/system-parameters>).
const SYSTEM: [&str; 2] = ["$alt", "$apiVersion"];

/// A discovery document.
#[derive(Debug)]
pub(super) struct Document {
    json: Value,
    methods: Vec<Method>,
}

/// One method of an API, at one of its addresses.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) id: String,
    verb: String,
    /// With the path that comes before all.
    path: String,
    /// How many parts it has.
    parts: usize,
    /// Whether the body is a file with its metadata.
    pub(super) upload: bool,
    json: Value,
}

/// Which way something travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

impl Document {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: Value =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let base = json["servicePath"].as_str().unwrap_or_default().to_owned();
        let mut methods = Vec::new();
        collect(&json, &base, &mut methods);
        Self { json, methods }
    }

    /// Which version of the API it describes.
    pub(super) fn version(&self) -> String {
        let text = |key: &str| self.json[key].as_str().unwrap_or("?").to_owned();
        format!(
            "{} {} revision {}",
            text("name"),
            text("version"),
            text("revision")
        )
    }

    /// The method that a request is for, and what its path says.
    pub(super) fn find(&self, verb: &str, path: &str) -> Option<(&Method, BTreeMap<String, String>)> {
        let parts = path.trim_start_matches('/').split('/').count();
        self.methods
            .iter()
            .filter(|method| method.verb == verb && method.parts == parts)
            .filter_map(|method| Some((method, path_parameters(&method.path, path)?)))
            // Words that are in the path are meant before words that could be anything.
            .min_by_key(|(_, parameters)| parameters.len())
    }

    /// What is wrong with a request.
    pub(super) fn faults_of_request(
        &self,
        method: &Method,
        path: &BTreeMap<String, String>,
        query: &[(String, String)],
        body: Option<&Value>,
    ) -> Vec<String> {
        let mut faults = Faults::new(&method.id, Way::Request);
        let declared = &method.json["parameters"];
        for (name, value) in path {
            faults.parameter(name, value, &declared[name]);
        }
        for (name, value) in query {
            let known = [&declared[name], &self.json["parameters"][name]]
                .into_iter()
                .find(|parameter| parameter["location"] == "query");
            match known {
                Some(parameter) => faults.parameter(name, value, parameter),
                None if SYSTEM.contains(&name.as_str()) => {}
                None => faults.add(name, "is no parameter of this method"),
            }
        }
        for (name, parameter) in declared.as_object().into_iter().flatten() {
            let there = path.contains_key(name) || query.iter().any(|(given, _)| given == name);
            if parameter["required"] == true && !there {
                faults.add(name, "is required, and not given");
            }
        }
        match (method.json["request"]["$ref"].as_str(), body) {
            (Some(schema), Some(body)) => {
                self.check(&self.json["schemas"][schema], body, schema, &mut faults);
            }
            (None, Some(_)) => faults.add("body", "this method takes none"),
            (Some(_), None) => faults.add("body", "is missing"),
            (None, None) => {}
        }
        faults.found
    }

    /// What is wrong with an answer: so this stand-in answers as Google would.
    pub(super) fn faults_of_answer(&self, method: &Method, body: Option<&Value>) -> Vec<String> {
        let mut faults = Faults::new(&method.id, Way::Answer);
        match (method.json["response"]["$ref"].as_str(), body) {
            (Some(schema), Some(body)) => {
                self.check(&self.json["schemas"][schema], body, schema, &mut faults);
            }
            (None, None) => {}
            (_, body) => faults.add(
                "answer",
                &format!("has the body {body:?}, against its definition"),
            ),
        }
        faults.found
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Faults) {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.check(&self.json["schemas"][reference], value, at, faults);
        }
        if let Some(items) = value.as_array() {
            if schema["type"] != "array" {
                faults.add(at, "is an array, which is not expected");
            }
            for (index, item) in items.iter().enumerate() {
                self.check(&schema["items"], item, &format!("{at}[{index}]"), faults);
            }
            return;
        }
        match value.as_object() {
            Some(fields) if schema["type"] == "object" => self.check_fields(schema, fields, at, faults),
            Some(_) => faults.add(at, "is an object, which is not expected"),
            None => faults.scalar(at, value, schema),
        }
    }

    fn check_fields(&self, schema: &Value, fields: &Map<String, Value>, at: &str, faults: &mut Faults) {
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            let field = match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Null) => {
                    faults.add(&at, "is no field of the definition");
                    continue;
                }
                (Value::Null, additional) => additional,
                (field, _) => field,
            };
            let says = field["description"].as_str().unwrap_or_default();
            let only_out =
                field["readOnly"] == true || says.contains("[Output Only]") || says.contains("Output only");
            let only_in = says.contains("Input Only]") || says.contains("Input only");
            if faults.way == Way::Request && only_out {
                faults.add(&at, "is set by Google alone");
            }
            if faults.way == Way::Answer && only_in && !only_out {
                faults.add(&at, "is never answered");
            }
            self.check(field, value, &at, faults);
        }
        if faults.way == Way::Request {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let required = field["annotations"]["required"]
                    .as_array()
                    .is_some_and(|methods| methods.iter().any(|method| *method == faults.method));
                if required && !fields.contains_key(name) {
                    faults.add(&format!("{at}.{name}"), "is required, and not given");
                }
            }
        }
    }
}

fn collect(json: &Value, base: &str, methods: &mut Vec<Method>) {
    let text = |method: &Value, key: &str| method[key].as_str().unwrap_or_default().to_owned();
    for method in json["methods"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, method)| method)
    {
        let plain = Method {
            id: text(method, "id"),
            verb: text(method, "httpMethod"),
            parts: format!("{base}{}", text(method, "path")).split('/').count(),
            path: format!("{base}{}", text(method, "path")),
            upload: false,
            json: method.clone(),
        };
        if let Some(path) = method["mediaUpload"]["protocols"]["simple"]["path"].as_str() {
            methods.push(Method {
                path: path.trim_start_matches('/').to_owned(),
                parts: path.trim_start_matches('/').split('/').count(),
                upload: true,
                ..plain.clone()
            });
        }
        methods.push(plain);
    }
    for resource in json["resources"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, resource)| resource)
    {
        collect(resource, base, methods);
    }
}

/// What is in the places of a template's `{names}`, when a path is of that form.
fn path_parameters(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    let mut parts = path.trim_start_matches('/').split('/');
    for expected in template.split('/') {
        let part = parts.next().filter(|part| !part.is_empty())?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                let value = percent_decode_str(part).decode_utf8().ok()?;
                parameters.insert(name.trim_start_matches('+').to_owned(), value.into_owned());
            }
            None if expected == part => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(parameters)
}

struct Faults {
    method: String,
    way: Way,
    found: Vec<String>,
}

impl Faults {
    fn new(method: &str, way: Way) -> Self {
        Self {
            method: method.to_owned(),
            way,
            found: Vec::new(),
        }
    }

    fn add(&mut self, at: &str, why: &str) {
        self.found
            .push(format!("{} ({:?}): {at} {why}", self.method, self.way));
    }

    /// Parameters are text, of the type that is declared.
    fn parameter(&mut self, name: &str, text: &str, parameter: &Value) {
        let value = match parameter["type"].as_str() {
            Some("boolean") => text.parse().map(Value::Bool).ok(),
            Some("integer") => text.parse::<i64>().map(Value::from).ok(),
            Some("string") => Some(Value::from(text)),
            _ => None,
        };
        match value {
            Some(value) => self.scalar(name, &value, parameter),
            None => self.add(name, &format!("is {text:?}, expected {}", parameter["type"])),
        }
    }

    fn scalar(&mut self, at: &str, value: &Value, schema: &Value) {
        let kind = schema["type"].as_str().unwrap_or("any");
        let format = schema["format"].as_str();
        let text = value.as_str().unwrap_or_default();
        let right = match (kind, format) {
            ("any", _) => true,
            ("string", Some("int64")) => text.parse::<i64>().is_ok(),
            ("string", Some("uint64")) => text.parse::<u64>().is_ok(),
            ("string", Some("byte")) => is_base64(text),
            ("string", Some("date-time")) => is_date_time(text),
            ("string", _) => value.is_string(),
            ("integer", Some("uint32")) => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
            ("integer", _) => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            ("number", _) => value.is_number(),
            ("boolean", _) => value.is_boolean(),
            _ => false,
        };
        if !right {
            return self.add(
                at,
                &format!("is {value}, expected {kind} {}", format.unwrap_or_default()),
            );
        }
        if let Some(names) = schema["enum"].as_array().filter(|names| !names.contains(value)) {
            self.add(
                at,
                &format!("is {value}, expected one of {}", Value::from(names.clone())),
            );
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !is_whole_match(pattern, text)
        {
            self.add(at, &format!("is {value}, expected {pattern}"));
        }
        for (key, holds) in [
            ("minimum", i64::ge as fn(&i64, &i64) -> bool),
            ("maximum", i64::le),
        ] {
            let limit = schema[key].as_str().and_then(|limit| limit.parse().ok());
            if let (Some(limit), Some(number)) = (limit, value.as_i64())
                && !holds(&number, &limit)
            {
                self.add(at, &format!("is {number}, and the {key} is {limit}"));
            }
        }
    }
}

/// Patterns are of whole texts, and few: each is compiled once.
fn is_whole_match(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().expect("nothing fails while it is held");
    let whole = compiled.entry(pattern.to_owned()).or_insert_with(|| {
        Regex::new(&format!("^(?:{pattern})$")).expect("patterns of definitions are regular expressions")
    });
    whole.is_match(text)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        || base64::engine::general_purpose::URL_SAFE.decode(text).is_ok()
}

/// RFC 3339, roughly: the stand-in's own answers alone have them.
fn is_date_time(text: &str) -> bool {
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Option<Document> {
        let folder = super::super::definitions()?;
        Some(Document::read(&folder.join("google-compute.v1.json")))
    }

    #[test]
    fn what_the_definition_does_not_have_is_found() {
        let Some(document) = document() else { return };
        let (method, path) = document
            .find("POST", "/compute/v1/projects/p/zones/z/instances")
            .unwrap();
        assert_eq!(method.id, "compute.instances.insert");
        let faults = |query: &[(&str, &str)], body: Value| {
            let query: Vec<_> = query
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            document.faults_of_request(method, &path, &query, Some(&body))
        };
        assert_eq!(faults(&[("$alt", "json")], json!({"name": "a"})), [""; 0]);
        for (query, body, says) in [
            (&[][..], json!({}), "name is required"),
            (&[], json!({"name": "A"}), "expected [a-z]"),
            (
                &[],
                json!({"name": "a", "status": "RUNNING"}),
                "set by Google alone",
            ),
            (&[], json!({"name": "a", "colour": "red"}), "is no field"),
            (
                &[],
                json!({"name": "a", "canIpForward": "true"}),
                "expected boolean",
            ),
            (
                &[],
                json!({"name": "a", "scheduling": {"onHostMaintenance": "STOP"}}),
                "expected one of",
            ),
            (
                &[],
                json!({"name": "a", "scheduling": {"maxRunDuration": {"seconds": 5}}}),
                "expected string int64",
            ),
            (&[], json!({"name": "a", "disks": {}}), "is an object"),
            (&[], json!({"name": "a", "labels": {"x": 1}}), "expected string"),
            (&[("colour", "red")], json!({"name": "a"}), "is no parameter"),
        ] {
            let found = faults(query, body.clone());
            assert!(
                found.len() == 1 && found[0].contains(says),
                "{body}: {found:?}, expected {says}"
            );
        }
        let (serial, path) = document
            .find("GET", "/compute/v1/projects/p/zones/z/instances/i/serialPort")
            .unwrap();
        let query = [("port".to_owned(), "5".to_owned())];
        let found = document.faults_of_request(serial, &path, &query, None);
        assert!(found[0].contains("maximum is 4"), "{found:?}");
        assert!(
            document
                .find("GET", "/compute/v1/projects/p/zones/z/machines")
                .is_none()
        );
    }
}
