//! What each version of systemd-stub measures.
//!
//! From `src/boot` (before 257 `src/boot/efi`) and `src/fundamental/uki.c` (before 256 `tpm-pcr.c`) of systemd 252,
//! 254 and 257, and from the release notes for the versions between. Version 258 and later load the kernel
//! themselves, and newer ones hand it a secret that no file holds: what these measure into PCRs 4 and 9 is another
//! computation.

use std::borrow::Cow;

use super::pe::{Pe, Section};
use super::{ImageError, cpio};

/// The oldest version that it is known for; older ones measure nothing into PCR 11.
pub(super) const OLDEST: u16 = 252;
/// The newest version that it is known for.
pub(super) const NEWEST: u16 = 257;

/// The sections that have a meaning, in the order of measuring, and the version that first measured them.
const SECTIONS: [(&str, u16); 14] = [
    (".linux", 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 254),
    (".sbat", 254),
    (".pcrsig", 252),
    (".pcrpkey", 252),
    (".profile", 257),
    (".dtbauto", 257),
    (".hwids", 257),
];

/// It signs what is measured, so it is not measured.
const UNMEASURED: &str = ".pcrsig";

/// Those of which the machine, or whoever starts the image, chooses one.
const CHOSEN: [&str; 3] = [".profile", ".dtbauto", ".efifw"];

/// The stub in a UKI.
#[derive(Debug, Clone)]
pub(super) struct Stub {
    /// The version, as the image says it.
    pub(super) text: String,
    /// The version whose measurements are computed.
    number: u16,
}

impl Stub {
    /// Finds out which version is in the image; `assumed` is what it is to be treated as.
    pub(super) fn find(pe: &Pe<'_>, assumed: Option<u16>) -> Result<Self, ImageError> {
        let no_stub = |found: String| ImageError::NoStub { found };
        let mut sections = pe.sections.iter().filter(|section| section.name == b".sdmagic");
        let section = match (sections.next(), sections.next()) {
            (Some(section), None) => section,
            (None, _) => return Err(no_stub("there is no such section".into())),
            _ => return Err(no_stub("there are several such sections".into())),
        };
        let magic = pe.content(section)?;
        let magic = magic.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = magic
            .strip_prefix(b"#### LoaderInfo: systemd-stub ")
            .and_then(|rest| rest.strip_suffix(b" ####"))
            .and_then(|version| str::from_utf8(version).ok())
            .filter(|version| version.len() <= 100 && version.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| {
                let found = magic.get(..80).unwrap_or(magic).escape_ascii();
                no_stub(format!("it has {:?}", found.to_string()))
            })?
            .to_owned();
        let digits = text.trim_start_matches('v');
        let digits = &digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())];
        let number = assumed.or_else(|| digits.parse().ok());
        match number.filter(|number| (OLDEST..=NEWEST).contains(number)) {
            Some(number) => Ok(Self { text, number }),
            None => Err(ImageError::Stub { found: text }),
        }
    }

    /// The sections that this version knows, in the order in which it measures them.
    fn known(&self) -> impl Iterator<Item = &'static str> {
        let number = self.number;
        SECTIONS
            .into_iter()
            .filter(move |(_, since)| number >= *since)
            .map(|(name, _)| name)
    }

    /// The sections of an image that have a meaning for this version.
    ///
    /// Versions before 256 take a section whose name only begins with the one that they look for, and the last of
    /// several; later ones the first. So an image that has either is refused.
    pub(super) fn sections<'p, 'a>(&self, pe: &'p Pe<'a>) -> Result<Sections<'p, 'a>, ImageError> {
        let mut found: Vec<(&'static str, &'p Section<'a>)> = Vec::new();
        for section in &pe.sections {
            let refused = |reason: String| {
                Err(ImageError::Section {
                    name: section.display_name(),
                    reason,
                })
            };
            if CHOSEN.iter().any(|name| section.name == name.as_bytes()) {
                return refused("which such section is used depends on the machine or on who starts it: this computes for images without".into());
            }
            let exact = self.known().find(|name| section.name == name.as_bytes());
            let Some(name) = exact else {
                if let Some(name) = self
                    .known()
                    .find(|name| section.name.starts_with(name.as_bytes()))
                {
                    return refused(format!(
                        "some versions of systemd-stub take this for {name}: rename it"
                    ));
                }
                continue;
            };
            if found.iter().any(|(other, _)| *other == name) {
                return refused(
                    "there are several with this name, and versions of systemd-stub differ in which they use: leave one".into(),
                );
            }
            found.push((name, section));
        }
        // To systemd-stub, an empty section is none.
        let found = self
            .known()
            .filter_map(|name| found.iter().find(|(other, _)| *other == name))
            .map(|(name, section)| Ok((*name, *section, pe.content(section)?)))
            .filter(|found| !matches!(found, Ok((_, _, []))))
            .collect::<Result<_, ImageError>>()?;
        Ok(Sections(found))
    }

    /// What it hands to the kernel as initial file system, in parts (`combine_initrd` in 252, `combine_initrds` in
    /// 257).
    ///
    /// One part is handed over as it is. Several are put together in this order, each padded with zeros to a multiple
    /// of 4 bytes: microcode, the image's file system, and an archive with one file for each section that user space
    /// is to have.
    pub(super) fn initrd<'a>(&self, sections: &Sections<'_, 'a>) -> Vec<Cow<'a, [u8]>> {
        const FILES: [(&str, &str, u16); 3] = [
            (".pcrsig", "tpm2-pcr-signature.json", 252),
            (".pcrpkey", "tpm2-pcr-public-key.pem", 252),
            (".osrel", "os-release", 257),
        ];
        let embedded = [".ucode", ".initrd"].into_iter();
        let mut parts: Vec<_> = embedded
            .filter_map(|name| sections.content(name))
            .map(Cow::Borrowed)
            .collect();
        for (name, file, since) in FILES {
            if let Some(content) = sections.content(name).filter(|_| self.number >= since) {
                parts.push(Cow::Owned(cpio::archive(file, content)));
            }
        }
        if parts.len() == 1 {
            return parts;
        }
        let padded = parts.into_iter().flat_map(|part| {
            let missing = part.len().next_multiple_of(4) - part.len();
            [part, Cow::Owned(vec![0; missing])]
        });
        padded.collect()
    }
}

/// The sections that have a meaning, with their contents, in the order of measuring.
#[derive(Debug)]
pub(super) struct Sections<'p, 'a>(Vec<(&'static str, &'p Section<'a>, &'a [u8])>);

impl<'p, 'a> Sections<'p, 'a> {
    pub(super) fn content(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(other, _, _)| *other == name);
        found.map(|(_, _, content)| *content)
    }

    /// Those that are measured.
    pub(super) fn measured(&self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        let measured = self.0.iter().filter(|(name, _, _)| *name != UNMEASURED);
        measured.map(|(name, _, content)| (*name, *content))
    }

    /// Their headers.
    pub(super) fn headers(&self) -> Vec<&'p Section<'a>> {
        self.0.iter().map(|(_, section, _)| *section).collect()
    }
}
