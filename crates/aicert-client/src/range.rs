//! Parts of what a server has, from a given byte to its end.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use crate::error::ClientError;
use crate::http::{Answer, Http};

/// A body from one byte on, whatever the server makes of the request for a part.
pub(crate) struct Part {
    answer: Answer,
    /// Bytes that were not asked for, and come before.
    skip: u64,
    /// Bytes that may still come.
    left: Option<u64>,
}

impl Http {
    /// Asks for everything from `offset` on. `total`, where it is known, is what there must be altogether.
    pub(crate) async fn part(
        &self,
        segments: &[&str],
        offset: u64,
        total: Option<u64>,
    ) -> Result<Part, ClientError> {
        let mut request = self.request(Method::GET, segments);
        if offset > 0 {
            let range = format!("bytes={offset}-");
            // Digits and ASCII letters.
            if let Ok(range) = HeaderValue::from_str(&range) {
                request.builder = request.builder.header(RANGE, range);
            }
        }
        let answer = self.send(request).await?;
        Part::of(answer, offset, total)
    }
}

impl Part {
    /// Holds the head of an answer to what was asked for.
    fn of(answer: Answer, offset: u64, total: Option<u64>) -> Result<Self, ClientError> {
        let length = answer.header(CONTENT_LENGTH.as_str()).map(str::to_owned);
        let (first, length_total) = match answer.response.status() {
            StatusCode::OK => (0, None),
            StatusCode::PARTIAL_CONTENT => {
                let header = answer
                    .header(CONTENT_RANGE.as_str())
                    .unwrap_or("no Content-Range");
                match content_range(header) {
                    Some((first, total)) if first == offset => (first, Some(total)),
                    _ => {
                        let (expected, found) = (format!("bytes {offset}-…"), header.to_owned());
                        return Err(ClientError::protocol(answer.name, expected, found));
                    }
                }
            }
            other => {
                let expected = "the whole (200) or a part (206)";
                return Err(ClientError::protocol(answer.name, expected, other.to_string()));
            }
        };
        if let (Some(expected), Some(found)) = (total, length_total)
            && expected != found
        {
            let (expected, found) = (format!("{expected} bytes in total"), format!("{found}"));
            return Err(ClientError::protocol(answer.name, expected, found));
        }
        let left = total.or(length_total).map(|total| total.saturating_sub(first));
        if let (Some(left), Some(length)) = (left, length)
            && length != left.to_string()
        {
            let expected = format!("{left} bytes from byte {first} on");
            let found = format!("{length} bytes");
            return Err(ClientError::protocol(answer.name, expected, found));
        }
        Ok(Self {
            answer,
            skip: offset - first,
            left,
        })
    }

    /// The next bytes behind the offset; nothing at the end.
    pub(crate) async fn next(&mut self, http: &Http) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(mut bytes) = http.chunk(&mut self.answer).await? else {
                return match self.left {
                    // It has no length of its own to be held to by the library.
                    Some(left) if left > 0 => {
                        Err(http.unreachable(format!("the answer ended {left} bytes too soon")))
                    }
                    _ => Ok(None),
                };
            };
            if let Some(left) = &mut self.left {
                match left.checked_sub(bytes.len() as u64) {
                    Some(rest) => *left = rest,
                    None => {
                        let name = self.answer.name.clone();
                        return Err(ClientError::protocol(
                            name,
                            "no more bytes than there are",
                            "more",
                        ));
                    }
                }
            }
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            let bytes = bytes.split_off(skipped);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// First byte and total of a part that reaches to the end (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last.checked_add(1)? == total).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_to_the_end_are_read() {
        assert_eq!(content_range("bytes 3-9/10"), Some((3, 10)));
        assert_eq!(content_range("bytes 0-0/1"), Some((0, 1)));
        for wrong in [
            "",
            "bytes 3-8/10",
            "bytes 3-10/10",
            "bytes 10-9/10",
            "bytes 3-9/*",
            "bytes */10",
            "bytes +3-9/10",
            "bytes 3-18446744073709551615/10",
            "bytes 3-9",
            "items 3-9/10",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
