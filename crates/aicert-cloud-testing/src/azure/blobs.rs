//! Page blobs, as far as uploads need them: Put Page and Get Page Ranges of Azure Storage, version 2021-08-06.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};

/// The most that one request may carry.
const LIMIT: usize = 4 << 20;

/// What has arrived of a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Upload {
    length: u64,
    /// By where they start; pieces do not overlap, or replace one another whole.
    pieces: BTreeMap<u64, Vec<u8>>,
}

/// An answer of the blob service.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) md5: Option<String>,
}

fn refuse(status: u16, code: &str) -> Answer {
    Answer {
        status,
        body: format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        ),
        md5: None,
    }
}

impl Upload {
    pub(super) fn new(length: u64) -> Self {
        Self {
            length,
            pieces: BTreeMap::new(),
        }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(self.length).unwrap_or(0)];
        for (start, piece) in &self.pieces {
            let start = usize::try_from(*start).unwrap_or(0);
            all[start..start + piece.len()].copy_from_slice(piece);
        }
        all
    }

    /// Put Page.
    pub(super) fn put(
        &mut self,
        header: impl Fn(&str) -> Option<String>,
        body: &[u8],
        corrupt: bool,
        wrong: &mut Vec<String>,
    ) -> Answer {
        let mut require = |is: bool, what: &str| {
            if !is {
                wrong.push(format!("Put Page: {what}"));
            }
        };
        require(header("x-ms-version").is_some(), "no x-ms-version");
        require(
            header("x-ms-page-write").as_deref() == Some("update"),
            "x-ms-page-write is not update",
        );
        require(header("authorization").is_none(), "a token was sent to a blob");
        require(body.len() <= LIMIT, "more than 4 MiB");
        let range = header("x-ms-range").unwrap_or_default();
        let parsed = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
            .and_then(|(start, end)| {
                Some((
                    start.parse::<u64>().ok()?,
                    end.parse::<u64>().ok()?.checked_add(1)?,
                ))
            });
        let Some((start, end)) = parsed else {
            require(false, "no x-ms-range");
            return refuse(400, "InvalidHeaderValue");
        };
        require(start % 512 == 0 && end % 512 == 0, "a range of no whole pages");
        require(
            end - start == body.len() as u64,
            "a range of another length than the body",
        );
        if end > self.length || end - start != body.len() as u64 {
            return refuse(416, "InvalidPageRange");
        }
        let mut body = body.to_vec();
        if corrupt && let Some(first) = body.first_mut() {
            *first ^= 1;
        }
        let md5 = BASE64.encode(Md5::digest(&body));
        match header("content-md5") {
            None => require(false, "no Content-MD5"),
            Some(sent) if sent != md5 => return refuse(400, "Md5Mismatch"),
            Some(_) => {}
        }
        self.pieces.insert(start, body);
        Answer {
            status: 201,
            body: String::new(),
            md5: Some(md5),
        }
    }

    /// Get Page Ranges.
    pub(super) fn list(&self) -> Answer {
        let mut body = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
        for (start, piece) in &self.pieces {
            let end = start + piece.len() as u64 - 1;
            body.push_str(&format!(
                "<PageRange><Start>{start}</Start><End>{end}</End></PageRange>"
            ));
        }
        body.push_str("</PageList>");
        Answer {
            status: 200,
            body,
            md5: None,
        }
    }

    /// What is wrong with it as a fixed virtual hard disk (Virtual Hard Disk Image Format Specification, "Hard Disk Footer Format").
    pub(super) fn fault_as_disk(&self) -> Option<&'static str> {
        let disk = self.length.checked_sub(512)?;
        if disk % (1 << 20) != 0 {
            return Some("it is no whole number of MiB");
        }
        let Some(footer) = self.pieces.get(&disk).filter(|piece| piece.len() == 512) else {
            return Some("it has no footer");
        };
        let number = |at: usize| {
            footer[at..at + 8]
                .iter()
                .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let sum: u32 = footer
            .iter()
            .enumerate()
            .filter(|(at, _)| !(64..68).contains(at))
            .map(|(_, byte)| u32::from(*byte))
            .sum();
        if &footer[..8] != b"conectix" || footer[12..16] != [0, 1, 0, 0] || footer[60..64] != [0, 0, 0, 2] {
            Some("its footer is not that of a fixed disk")
        } else if number(48) != disk || number(16) != u64::MAX {
            Some("its footer tells another size")
        } else if footer[64..68] != (!sum).to_be_bytes() {
            Some("the checksum of its footer is wrong")
        } else {
            None
        }
    }
}
