//! Server-sent events (HTML Living Standard, section 9.2.6, "Interpreting an event stream"), as far as aicert's servers use
//! them: events with a number and one text.

/// The longest line, and the longest text of one event.
pub(crate) const EVENT_LIMIT: usize = 1 << 20;

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawEvent {
    /// Its number.
    pub(crate) id: Option<u64>,
    /// Its text.
    pub(crate) data: String,
}

/// Says why a stream is none of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("a line or an event of more than {EVENT_LIMIT} bytes")]
    TooLong,
    #[error("text that is not UTF-8")]
    NotUtf8,
    #[error("the event id {0:?}, which is no number")]
    Id(String),
}

/// Reads a stream piece by piece. What it keeps is bounded, whatever comes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Bytes behind the last end of a line.
    line: Vec<u8>,
    /// What was taken was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Whether a line was read: only the first may begin with a byte order mark.
    is_begun: bool,
    /// The lines of data since the last event.
    data: Option<String>,
    id: Option<u64>,
}

impl Parser {
    /// Takes the next bytes of the stream, and gives the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<RawEvent>) -> Result<(), SseError> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.keep(rest);
            };
            self.keep(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line()?);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + bytes.len() > EVENT_LIMIT {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<RawEvent>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
        let line = match std::mem::replace(&mut self.is_begun, true) {
            true => line,
            false => line.strip_prefix('\u{feff}').unwrap_or(line),
        };
        if line.is_empty() {
            let id = self.id.take();
            return Ok(self.data.take().map(|data| RawEvent { id, data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) if data.len() + value.len() + 1 > EVENT_LIMIT => return Err(SseError::TooLong),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" => {
                let id = value.parse();
                self.id = Some(id.map_err(|_| SseError::Id(value.chars().take(40).collect()))?);
            }
            // A comment, `event`, `retry`, or something of a later version.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<RawEvent>, SseError> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut events)?;
        }
        Ok(events)
    }

    fn event(id: Option<u64>, data: &str) -> RawEvent {
        RawEvent {
            id,
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_read_however_lines_end() {
        let text = "\u{feff}: hello\n\nid: 7\ndata: {\"a\":1}\n\nid:8\nevent: x\nretry: 5\ndata:one\ndata: two\ndata\n\nid: 9\n\ndata: cut";
        let expected = vec![event(Some(7), "{\"a\":1}"), event(Some(8), "one\ntwo\n")];
        for ends in ["\n", "\r", "\r\n"] {
            assert_eq!(
                read(&[text.replace('\n', ends).as_bytes()]).unwrap(),
                expected,
                "{ends:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let endless = vec![b'x'; 4096];
        let error = (0..10_000).find_map(|_| parser.push(&endless, &mut events).err());
        assert_eq!(error, Some(SseError::TooLong));
        assert!(parser.line.len() <= EVENT_LIMIT);

        let (mut parser, line) = (Parser::default(), [b"data: ", &endless[..], b"\n"].concat());
        let error = (0..10_000).find_map(|_| parser.push(&line, &mut events).err());
        assert_eq!(error, Some(SseError::TooLong));
        assert!(events.is_empty());
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused() {
        assert_eq!(read(&[b"data: \xff\n"]), Err(SseError::NotUtf8));
        for id in ["", "x", "-1", "1.0", "18446744073709551616"] {
            let text = format!("id: {id}\ndata: x\n\n");
            assert_eq!(read(&[text.as_bytes()]), Err(SseError::Id(id.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_cut(
            text in "(id: [0-9]{1,3}|data: ?[a-zé:]{0,5}|: [a-z]{0,3}|\n|\r|\r\n|[a-z]{0,4}){0,40}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read(&pieces);
        }
    }
}
