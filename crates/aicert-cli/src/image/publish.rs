//! `aicert image publish` and `aicert image discard`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aicert_core::cloud::{ImagePublisher, ImageRequest, PublishedImage};
use aicert_verify::image::MeasureOptions;
use aicert_verify::reference::ImageReference;
use serde_json::json;

use super::verify::raw_image;
use crate::args::{CloudName, DestinationArgs, DiscardArgs, PublishArgs};
use crate::backends::{self, Destination};
use crate::error::{Exit, Failure};
use crate::files;
use crate::output::Terminal;
use crate::owner;
use crate::progress::Renderer;
use crate::run::{REFERENCE_VALUES, block_on};
use crate::signals::Signals;
use crate::text::Text;
use crate::verify::reference_values;

/// How much of what tells two builds apart is in the name of an image.
const SHORT: usize = 12;
/// The longest name that every cloud takes.
const NAME_LIMIT: usize = 60;

pub(crate) fn publish(args: &PublishArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let (destination, publisher) = publisher(&args.destination)?;
    let image = raw_image(&args.image)?;
    // Only what can be booted and attested is worth the way.
    let measured = super::read(&image, &MeasureOptions::default())?;
    let references = references(&image, &measured)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&measured));
    block_on(async {
        let mut signals = Signals::listen()?;
        let (progress, renderer) = Renderer::start(terminal, tokio::runtime::Handle::current());
        let request = ImageRequest {
            image: image.clone(),
            name: name.clone(),
            progress: progress.clone(),
        };
        let published = tokio::select! {
            biased;
            number = signals.next() => Err(interrupted(number, "published")),
            published = publisher.publish(request) => published.map_err(|error| Failure::of(&error)),
        };
        drop(progress);
        renderer.finish();
        let published = published?;
        tell(
            &destination,
            &name,
            &published,
            references.as_deref(),
            &image,
            terminal,
        );
        Ok(Exit::Holds)
    })
}

pub(crate) fn discard(args: &DiscardArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let (_, publisher) = publisher(&args.destination)?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let discarded = tokio::select! {
            biased;
            number = signals.next() => Err(interrupted(number, "removed")),
            discarded = publisher.discard(&args.name) => discarded.map_err(|error| Failure::of(&error)),
        };
        discarded?;
        terminal.result(
            &Text::from("Nothing is left of the image ")
                .bold(&args.name)
                .plain("."),
        );
        terminal.json_result(&json!({ "discarded": args.name }));
        Ok(Exit::Holds)
    })
}

fn interrupted(number: u8, what: &str) -> Failure {
    Failure::new(
        Exit::Signal(number),
        format!("interrupted before the image was {what}"),
    )
    .help("the same command goes on with what is there; `aicert image discard` removes it")
}

fn publisher(args: &DestinationArgs) -> Result<(Destination, Arc<dyn ImagePublisher>), Failure> {
    let destination = destination(args, &|name| std::env::var(name).ok())?;
    let publisher = backends::publisher(&destination, owner::owner()?)?;
    Ok((destination, publisher))
}

/// What the options say, and what the vendors' own variables say where they do not.
fn destination(
    args: &DestinationArgs,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Destination, Failure> {
    let own: &[&str] = match args.provider {
        CloudName::Azure => &["region", "subscription", "resource-group", "gallery"],
        CloudName::Aws => &["region"],
        CloudName::Gcp => &["project", "bucket"],
    };
    for (option, value) in [
        ("region", &args.region),
        ("subscription", &args.subscription),
        ("resource-group", &args.resource_group),
        ("gallery", &args.gallery),
        ("project", &args.project),
        ("bucket", &args.bucket),
    ] {
        if value.is_some() && !own.contains(&option) {
            return Err(Failure::misuse(format!("`--{option}` is of another cloud"))
                .help(format!("here there are --{}", own.join(", --"))));
        }
    }
    let needed = |option: &str, value: &Option<String>, variables: &[&str]| {
        let set = |name: &&str| environment(name).filter(|value| !value.is_empty());
        let found = value.clone().or_else(|| variables.iter().find_map(set));
        found.ok_or_else(|| {
            let more: String = variables.iter().map(|name| format!(", or set {name}")).collect();
            Failure::misuse(format!("`--{option}` is missing")).help(format!("add `--{option}`{more}"))
        })
    };
    Ok(match args.provider {
        CloudName::Azure => Destination::Azure {
            subscription: needed("subscription", &args.subscription, &["AZURE_SUBSCRIPTION_ID"])?,
            region: needed("region", &args.region, &[])?,
            resource_group: args.resource_group.clone(),
            gallery: args.gallery.clone(),
        },
        CloudName::Aws => Destination::Aws {
            region: needed("region", &args.region, &["AWS_REGION", "AWS_DEFAULT_REGION"])?,
        },
        CloudName::Gcp => Destination::Gcp {
            project: needed("project", &args.project, &["GOOGLE_CLOUD_PROJECT"])?,
            bucket: needed("bucket", &args.bucket, &[])?,
        },
    })
}

/// The reference values beside an image, if there are any; they must be of this very image.
fn references(image: &Path, measured: &ImageReference) -> Result<Option<PathBuf>, Failure> {
    let beside = files::sibling(image, REFERENCE_VALUES);
    if !files::exists(&beside) {
        return Ok(None);
    }
    let values = reference_values(std::slice::from_ref(&beside))?;
    if values.images.iter().any(|image| image.events == measured.events) {
        return Ok(Some(std::path::absolute(&beside).unwrap_or(beside)));
    }
    Err(Failure::misuse(format!(
        "{} is not about {}, which is beside it",
        beside.display(),
        image.display()
    ))
    .help(
        "machines of it would be refused: `aicert image measure IMAGE --json` computes its reference values",
    ))
}

/// A name that every cloud takes, and that images of other bytes do not have.
fn name_of(measured: &ImageReference) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| {
                if c.is_ascii_lowercase() || c.is_ascii_digit() {
                    c
                } else {
                    '-'
                }
            })
            .collect()
    };
    let commit = measured.build.as_deref().unwrap_or_default();
    let is_commit = commit.len() >= SHORT && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = hex::encode(&measured.sha256.0);
    let unique = if is_commit { commit } else { &hash };
    let unique: String = plain(unique).chars().take(SHORT).collect();
    let mut name = plain(&measured.name);
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        name.insert_str(0, "image-");
    }
    name.truncate(NAME_LIMIT - SHORT - 1);
    format!("{}-{unique}", name.trim_end_matches('-'))
}

/// Says what to write into a configuration.
fn tell(
    destination: &Destination,
    name: &str,
    published: &PublishedImage,
    references: Option<&Path>,
    image: &Path,
    terminal: Terminal,
) {
    let id = &published.id;
    let mut lines: Vec<(&str, String)> = match destination {
        Destination::Azure {
            subscription, region, ..
        } => vec![
            ("provider", "azure".into()),
            ("subscription", subscription.clone()),
            ("region", region.clone()),
        ],
        Destination::Aws { region } => vec![("provider", "aws".into()), ("region", region.clone())],
        Destination::Gcp { project, .. } => {
            vec![("provider", "gcp".into()), ("project", project.clone())]
        }
    };
    lines.push(("image", id.clone()));
    lines.extend(references.map(|path| ("referenceValues", path.display().to_string())));
    let mut text = if published.existed {
        Text::from("The image was there already: ")
    } else {
        Text::from("Published: ")
    };
    text = text.bold(id).plain("\n\n").plain("machine:\n");
    for (key, value) in &lines {
        text = text.plain(&format!("  {key}: {}\n", quoted(value)));
    }
    if matches!(destination, Destination::Gcp { .. }) {
        text = text
            .plain("  zone: ")
            .dim("where machines shall be, such as europe-west4-a\n");
    }
    if references.is_none() {
        let command = crate::card::shown_command(&[
            "aicert".into(),
            "image".into(),
            "measure".into(),
            image.display().to_string(),
            "--json".into(),
        ]);
        text = text
            .plain("  referenceValues: ")
            .dim(&format!("a file with what `{command}` prints\n"));
    }
    terminal.result(&text);
    let machine: serde_json::Map<_, _> = lines
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    terminal.json_result(&json!({
        "image": id,
        "name": name,
        "existed": published.existed,
        "reference_values": references,
        "machine": machine,
    }));
}

/// A text as YAML takes it, whatever is in it.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    // Neither a number nor anything else that YAML knows.
    let is_text = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !["true", "false", "null"].contains(&text);
    if is_text && text.bytes().all(plain) {
        text.to_owned()
    } else {
        // JSON's texts are texts of YAML.
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use aicert_verify::reference::ReferenceValues;

    use super::*;

    fn measured(name: &str, build: Option<&str>) -> ImageReference {
        let text = json!({
            "version": "aicert/reference-values/v1",
            "images": [{ "name": name, "sha256": "ab".repeat(32), "events": [], "build": build.unwrap_or("none") }],
        });
        let values: ReferenceValues = serde_json::from_value(text).unwrap();
        let mut image = values.images.into_iter().next().unwrap();
        image.build = build.map(str::to_owned);
        image
    }

    #[test]
    fn names_suit_every_cloud_and_differ() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (name, build, expected) in [
            (
                "aicert-base 0.2.0",
                Some(commit),
                "aicert-base-0-2-0-0123456789ab",
            ),
            (
                "aicert-base 0.2.0",
                Some("0123456789abcdef-modified"),
                "aicert-base-0-2-0-abababababab",
            ),
            ("Größe", None, "gr--e-abababababab"),
            ("9", None, "image-9-abababababab"),
        ] {
            assert_eq!(name_of(&measured(name, build)), expected);
        }
        let long = name_of(&measured(&"x-".repeat(100), None));
        assert!(long.len() <= NAME_LIMIT && !long.contains("--"), "{long}");
    }

    #[test]
    fn what_is_missing_is_taken_from_the_environment_or_told() {
        let args = |provider| DestinationArgs {
            provider,
            region: None,
            subscription: None,
            resource_group: None,
            gallery: None,
            project: None,
            bucket: None,
        };
        let nothing = |_: &str| None;
        let failure = destination(&args(CloudName::Aws), &nothing).unwrap_err();
        assert_eq!(failure.message, "`--region` is missing");
        assert_eq!(
            failure.help.as_deref(),
            Some("add `--region`, or set AWS_REGION, or set AWS_DEFAULT_REGION")
        );
        let set = |name: &str| (name == "AWS_DEFAULT_REGION").then(|| "eu-west-1".to_owned());
        assert!(
            matches!(destination(&args(CloudName::Aws), &set), Ok(Destination::Aws { region }) if region == "eu-west-1")
        );
        let mut other = args(CloudName::Gcp);
        other.region = Some("eu-west-1".into());
        let failure = destination(&other, &nothing).unwrap_err();
        assert_eq!(failure.message, "`--region` is of another cloud");
        assert_eq!(
            failure.help.as_deref(),
            Some("here there are --project, --bucket")
        );
    }

    #[test]
    fn lines_can_be_pasted() {
        for (text, expected) in [
            ("eu-west-1", "eu-west-1"),
            (
                "/subscriptions/x/versions/1.2.3",
                "/subscriptions/x/versions/1.2.3",
            ),
            ("/my images/a: b.json", "\"/my images/a: b.json\""),
            ("123", "\"123\""),
            ("1e3", "\"1e3\""),
            (
                "01234567-89ab-cdef-0123-456789abcdef",
                "\"01234567-89ab-cdef-0123-456789abcdef\"",
            ),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
