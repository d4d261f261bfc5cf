//! Page blobs, by the address with a signature that Resource Manager gives out: what disks are uploaded through.
//!
//! Azure Storage's REST API: Put Page, Get Page Ranges, version 2021-08-06.

use aicert_core::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::arm::Arm;
use crate::error::Failure;
use crate::transport::{Reply, checked};

/// How much one request may carry.
pub(crate) const PIECE: u64 = 4 << 20;

const VERSION: &str = "2021-08-06";

/// More ranges than that no image has.
const RANGES: usize = 10_000_000;

/// A page blob that may be written.
#[derive(Debug, Clone)]
pub(crate) struct PageBlob {
    arm: Arm,
    /// Whoever has it may write.
    address: Secret,
}

impl PageBlob {
    pub(crate) fn new(arm: Arm, address: Secret) -> Self {
        Self { arm, address }
    }

    /// Writes pages. What arrived is compared: the service refuses bytes that do not match their MD5, and says which it got.
    pub(crate) async fn put(&self, start: u64, bytes: Bytes) -> Result<(), Failure> {
        let md5 = BASE64.encode(Md5::digest(&bytes));
        let range = format!("bytes={start}-{}", start + bytes.len() as u64 - 1);
        let headers = [
            ("x-ms-page-write", "update"),
            ("x-ms-range", range.as_str()),
            ("content-md5", md5.as_str()),
        ];
        let reply = self.send(Method::PUT, "page", &[], &headers, bytes).await?;
        match reply.header("content-md5") {
            Some(found) if found != md5 => Err(Failure::Unexpected {
                request: format!("PUT page {range}"),
                why: format!("other bytes arrived than were sent: their MD5 is {found:.40}, and not {md5}"),
            }),
            _ => Ok(()),
        }
    }

    /// What has been written: starts and ends, in order, not overlapping.
    pub(crate) async fn ranges(&self) -> Result<Vec<(u64, u64)>, Failure> {
        let mut all = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let query: Vec<(&str, &str)> = marker.iter().map(|marker| ("marker", marker.as_str())).collect();
            let reply = self
                .send(Method::GET, "pagelist", &query, &[], Bytes::new())
                .await?;
            let text = String::from_utf8_lossy(&reply.body);
            let read = page_list(&text).ok_or_else(|| Failure::Unexpected {
                request: "GET pagelist".into(),
                why: "it is no list of pages".into(),
            })?;
            all.extend(read);
            marker = element(&text, "NextMarker")
                .filter(|marker| !marker.is_empty())
                .map(str::to_owned);
            if marker.is_none() {
                break;
            }
            if all.len() > RANGES {
                return Err(Failure::Unexpected {
                    request: "GET pagelist".into(),
                    why: "its pages do not end".into(),
                });
            }
        }
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in all {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Ok(merged)
    }

    async fn send(
        &self,
        method: Method,
        comp: &str,
        query: &[(&str, &str)],
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let request = format!("{method} {comp}");
        let unusable = || Failure::Unexpected {
            request: "POST beginGetAccess".into(),
            why: "the address of the disk is none".into(),
        };
        let mut url = Url::parse(self.address.expose()).map_err(|_| unusable())?;
        url.query_pairs_mut()
            .append_pair("comp", comp)
            .extend_pairs(query);
        let mut map = HeaderMap::new();
        map.insert("x-ms-version", HeaderValue::from_static(VERSION));
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).map_err(|_| unusable())?,
            );
        }
        self.arm
            .retry(request.clone(), || async {
                let reply = self
                    .arm
                    .http
                    .send(method.clone(), &url, map.clone(), body.clone())
                    .await?;
                checked(request.clone(), reply)
            })
            .await
    }
}

/// Whether a piece lies in what has been written.
pub(crate) fn covers(ranges: &[(u64, u64)], (start, end): (u64, u64)) -> bool {
    let at = ranges.partition_point(|range| range.0 <= start);
    at.checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|range| end <= range.1)
}

/// `<PageRange><Start>0</Start><End>511</End></PageRange>` and so on; ends are of the last byte. Cleared ranges hold nothing.
fn page_list(text: &str) -> Option<Vec<(u64, u64)>> {
    if !text.contains("<PageList") {
        return None;
    }
    let mut ranges = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<PageRange>") {
        let (range, behind) = after.split_once("</PageRange>")?;
        let number = |name| element(range, name)?.parse::<u64>().ok();
        let (start, end) = (number("Start")?, number("End")?);
        ranges.push((start, end.checked_add(1).filter(|end| *end > start)?));
        rest = behind;
    }
    Some(ranges)
}

/// The text of the first element of a name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = after.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_pages_are_read() {
        let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList><PageRange><Start>0</Start><End>511</End></PageRange>\
                    <ClearRange><Start>512</Start><End>1023</End></ClearRange><PageRange><Start>1024</Start><End>2047</End></PageRange>\
                    <NextMarker>m</NextMarker></PageList>";
        assert_eq!(page_list(text).unwrap(), [(0, 512), (1024, 2048)]);
        assert_eq!(element(text, "NextMarker"), Some("m"));
        assert_eq!(page_list("<PageList/>").unwrap(), []);
        for text in [
            "",
            "<Error/>",
            "<PageList><PageRange><Start>5</Start><End>3</End></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start><End>18446744073709551615</End></PageRange></PageList>",
        ] {
            assert!(page_list(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_piece_is_there_when_all_of_it_is() {
        let ranges = [(0, 100), (200, 300)];
        assert!(covers(&ranges, (0, 100)) && covers(&ranges, (250, 300)));
        assert!(!covers(&ranges, (50, 150)) && !covers(&ranges, (100, 101)) && !covers(&[], (0, 1)));
    }
}
