//! The service models that botocore carries.

use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A service: its operations, and the shapes of what they take and answer.
pub(crate) struct Model(Value);

/// An operation of a service.
pub(crate) struct Operation<'a> {
    pub(crate) name: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) input: Option<&'a str>,
    pub(crate) output: Option<&'a str>,
}

impl Model {
    pub(crate) fn ec2(tools: &Path) -> &'static Self {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| Self::read(tools, "aws-ec2.json", "2016-11-15"))
    }

    pub(crate) fn ebs(tools: &Path) -> &'static Self {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| Self::read(tools, "aws-ebs.json", "2019-11-02"))
    }

    fn read(tools: &Path, file: &str, version: &str) -> Self {
        let path = tools.join("definitions").join(file);
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let model: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(model["metadata"]["apiVersion"], version, "{file}");
        Self(model)
    }

    pub(crate) fn operation<'a>(&'a self, name: &str) -> Option<Operation<'a>> {
        let operations = self.0["operations"].as_object()?;
        let (name, operation) = operations.get_key_value(name)?;
        Some(Self::describe(name, operation))
    }

    pub(crate) fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        self.0["operations"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, operation)| Self::describe(name, operation))
    }

    fn describe<'a>(name: &'a str, operation: &'a Value) -> Operation<'a> {
        Operation {
            name,
            method: operation["http"]["method"].as_str().unwrap_or("POST"),
            path: operation["http"]["requestUri"].as_str().unwrap_or("/"),
            input: operation["input"]["shape"].as_str(),
            output: operation["output"]["shape"].as_str(),
        }
    }

    pub(crate) fn shape(&self, name: &str) -> &Value {
        &self.0["shapes"][name]
    }

    /// The members of a structure.
    pub(crate) fn members(&self, shape: &str) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.shape(shape)["members"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, member)| Some((name.as_str(), member.as_object()?)))
    }

    pub(crate) fn required(&self, shape: &str) -> impl Iterator<Item = &str> {
        self.shape(shape)["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// What is wrong with a value that is no structure and no list.
    pub(crate) fn wrong(&self, shape: &str, text: &str) -> Option<String> {
        let definition = self.shape(shape);
        let kind = definition["type"].as_str().unwrap_or_default();
        let fits = match kind {
            "string" => true,
            "integer" => text.parse::<i32>().is_ok(),
            "long" => text.parse::<i64>().is_ok(),
            "float" | "double" => text.parse::<f64>().is_ok(),
            "boolean" => matches!(text, "true" | "false"),
            "timestamp" => text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[4] == b'-',
            "blob" => STANDARD.decode(text).is_ok(),
            _ => return Some(format!("one value where {shape} is a {kind}")),
        };
        if !fits {
            return Some(format!("{text:?} is no {kind} ({shape})"));
        }
        // Kinds of machines are new every month: whoever names one knows it better than this list.
        if shape != "InstanceType"
            && let Some(values) = definition["enum"].as_array()
            && values.iter().all(|value| value != text)
        {
            return Some(format!("{text:?} is none of {shape}"));
        }
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let size = match kind {
            "string" => Some(length),
            "integer" | "long" => text.parse().ok(),
            _ => None,
        };
        let outside = size.is_some_and(|size| {
            definition["min"].as_u64().is_some_and(|min| size < min)
                || definition["max"].as_u64().is_some_and(|max| size > max)
        });
        outside.then(|| format!("{text:?} is too short, long, small or large for {shape}"))
    }
}
