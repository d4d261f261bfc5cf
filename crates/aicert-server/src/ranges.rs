//! Ranges of bytes (RFC 9110, section 14): one at a time. Several at once, other units and what cannot be understood are
//! answered with the whole, as section 14.2 lets a server do.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use crate::problem::Refusal;

/// What part of `length` bytes is asked for; nothing when it is the whole.
///
/// # Errors
///
/// When none of it is there.
pub(crate) fn requested(
    headers: &HeaderMap,
    length: u64,
    etag: Option<&str>,
) -> Result<Option<Range<u64>>, Refusal> {
    let Some(range) = single(headers, header::RANGE).and_then(|text| parse(text, length)) else {
        return Ok(None);
    };
    if headers.contains_key(header::IF_RANGE) {
        // Strong comparison (section 13.1.5); a date is no match: there are none here.
        let expected = single(headers, header::IF_RANGE);
        if expected.is_none() || expected != etag {
            return Ok(None);
        }
    }
    range.map(Some).ok_or_else(|| Refusal::range(length))
}

/// The only value of a header.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// The outer nothing: to be ignored. The inner one: not there.
fn parse(text: &str, length: u64) -> Option<Option<Range<u64>>> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", suffix) => {
            let suffix = number(suffix)?;
            let start = length.saturating_sub(suffix);
            Some((suffix > 0 && length > 0).then_some(start..length))
        }
        (first, "") => {
            let first = number(first)?;
            Some((first < length).then_some(first..length))
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            Some((first < length).then(|| first..last.saturating_add(1).min(length)))
        }
    }
}

/// Digits alone; more than fit are as good as endlessly many.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// An answer with a part of `length` bytes, or with all of them.
pub(crate) fn answer(
    range: Option<Range<u64>>,
    length: u64,
    etag: Option<&str>,
    content_type: &'static str,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    let sent = range.as_ref().map_or(length, |range| range.end - range.start);
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        // Digits, and the text of a digest: always a header's value.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::ACCEPT_RANGES, "bytes");
    set(header::CONTENT_TYPE, content_type);
    set(header::CONTENT_LENGTH, &sent.to_string());
    set(header::CACHE_CONTROL, "no-store");
    if let Some(etag) = etag {
        set(header::ETAG, etag);
    }
    if let Some(Range { start, end }) = range {
        set(
            header::CONTENT_RANGE,
            &format!("bytes {start}-{}/{length}", end.saturating_sub(1)),
        );
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (text, expected) in [
            ("bytes=0-499", Some(Some(0..500))),
            ("bytes=500-999", Some(Some(500..1000))),
            ("bytes=500-", Some(Some(500..1000))),
            ("bytes=-500", Some(Some(500..1000))),
            ("bytes=-5000", Some(Some(0..1000))),
            ("bytes=0-0", Some(Some(0..1))),
            ("bytes=999-5000", Some(Some(999..1000))),
            ("BYTES=0-1", Some(Some(0..2))),
            ("bytes=0-99999999999999999999999999", Some(Some(0..1000))),
            ("bytes=1000-", Some(None)),
            ("bytes=99999999999999999999999999-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("bytes 0-1", None),
        ] {
            assert_eq!(parse(text, 1000), expected, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(None));
        assert_eq!(parse("bytes=-1", 0), Some(None));
    }

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_range_of_something_else_is_answered_with_the_whole() {
        let range = |if_range: &str| {
            let headers = headers(&[(header::RANGE, "bytes=1-2"), (header::IF_RANGE, if_range)]);
            requested(&headers, 10, Some("\"a\"")).unwrap()
        };
        assert_eq!(range("\"a\""), Some(1..3));
        for other in [
            "\"b\"",
            "W/\"a\"",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "*",
            "\"a\", \"b\"",
        ] {
            assert_eq!(range(other), None, "{other}");
        }
        // What is not there is not refused when it is of something else.
        let gone = headers(&[(header::RANGE, "bytes=90-"), (header::IF_RANGE, "\"b\"")]);
        assert_eq!(requested(&gone, 10, Some("\"a\"")).unwrap(), None);
        let twice = headers(&[(header::RANGE, "bytes=1-2")]);
        assert_eq!(requested(&twice, 10, None).unwrap(), Some(1..3));
        let gone = headers(&[(header::RANGE, "bytes=10-")]);
        let response = axum::response::IntoResponse::into_response(requested(&gone, 10, None).unwrap_err());
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */10");
    }

    proptest! {
        #[test]
        fn a_range_is_always_inside(text in "(bytes=)?[0-9,a=-]{0,24}", length in prop_oneof![0u64..50, Just(u64::MAX)]) {
            if let Some(Some(range)) = parse(&text, length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
