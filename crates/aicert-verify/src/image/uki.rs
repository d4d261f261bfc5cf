//! What a UKI measures.

use super::kernel::Kernel;
use super::pe::Pe;
use super::stub::Stub;
use super::{ImageError, MeasureOptions, command_line, pcr};
use crate::reference::{Digests, ExpectedEvent};

/// What a UKI says of itself, and measures.
pub(super) struct Uki {
    pub(super) stub: String,
    pub(super) kernel: String,
    pub(super) command_line: Option<String>,
    /// The name that its `.osrel` gives it.
    pub(super) name: Option<String>,
    /// What its `.osrel` says that it was built from.
    pub(super) build: Option<String>,
    pub(super) events: Vec<ExpectedEvent>,
}

const APPLICATION: &str = "EV_EFI_BOOT_SERVICES_APPLICATION";

impl Uki {
    pub(super) fn measure(bytes: &[u8], options: &MeasureOptions) -> Result<Self, ImageError> {
        let pe = Pe::parse("the UKI", bytes)?;
        let stub = Stub::find(&pe, options.assume_stub)?;
        let sections = stub.sections(&pe)?;
        pe.check_memory(&sections.headers())?;
        let linux = sections.content(".linux").ok_or_else(|| ImageError::Section {
            name: ".linux".into(),
            reason: "there is none, or it is empty: an image without a kernel boots nothing".into(),
        })?;
        let kernel = Kernel::parse(linux, sections.content(".uname"))?;
        let command_line = sections.content(".cmdline").map(command_line::read).transpose()?;
        kernel.check_command_line(command_line.as_deref().unwrap_or_default())?;

        let mut events = vec![event(4, APPLICATION, "UKI", pe.digests()?)];
        for (name, content) in sections.measured() {
            let with_nul = [name.as_bytes(), b"\0"].concat();
            events.push(event(
                11,
                "EV_IPL",
                format!("section {name}: name"),
                Digests::of(&with_nul),
            ));
            events.push(event(
                11,
                "EV_IPL",
                format!("section {name}: content"),
                Digests::of(content),
            ));
        }
        events.push(ExpectedEvent {
            optional: true,
            ..event(4, APPLICATION, "kernel", kernel.pe.digests()?)
        });
        if let Some(command_line) = &command_line {
            let hashed = Digests::of(&command_line::load_options(command_line));
            events.push(event(9, "EV_EVENT_TAG", "load options", hashed));
        }
        let initrd = stub.initrd(&sections);
        let parts: Vec<_> = initrd.iter().map(|part| &**part).collect();
        if !parts.is_empty() {
            let hashed = Digests::with(|bank| bank.hash(&parts));
            events.push(event(9, "EV_EVENT_TAG", "initrd", hashed));
        }
        Ok(Self {
            name: sections.content(".osrel").and_then(name),
            build: sections
                .content(".osrel")
                .and_then(|osrel| value(osrel, "BUILD_ID")),
            stub: stub.text,
            kernel: kernel.release,
            command_line,
            events,
        })
    }
}

pub(super) fn event(index: u8, event_type: &str, what: impl Into<String>, digests: Digests) -> ExpectedEvent {
    ExpectedEvent {
        pcr: pcr(index),
        event_type: event_type.into(),
        what: what.into(),
        digests,
        optional: false,
    }
}

/// The name in an `os-release` (os-release(5)): image and version, else what the system is called.
fn name(osrel: &[u8]) -> Option<String> {
    match (value(osrel, "IMAGE_ID"), value(osrel, "IMAGE_VERSION")) {
        (Some(id), Some(version)) => Some(format!("{id} {version}")),
        _ => value(osrel, "PRETTY_NAME"),
    }
}

/// A value in an `os-release`, if it is there and not empty.
fn value(osrel: &[u8], key: &str) -> Option<String> {
    let text = str::from_utf8(osrel).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let unquoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| line.strip_prefix(quote)?.strip_suffix(quote));
    let value = unquoted.unwrap_or(line);
    (!value.is_empty()).then(|| value.to_owned())
}
