//! As much of HTTP/1.1 as it takes to ask a cloud what it tells this machine (RFC 9112). One request, one answer, one connection;
//! nothing is believed of how long anything will be.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How many bytes stand before a body at most.
const HEAD_LIMIT: u64 = 16 << 10;

/// How long one exchange may take, whatever comes in.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// The path, and what follows it.
    pub(crate) target: &'a str,
    /// The name of who is asked.
    pub(crate) host: &'a str,
    pub(crate) fields: &'a [(&'a str, &'a str)],
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Says why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// The connection failed, or took too long.
    Connection(io::Error),
    /// What came is not an answer that can be understood.
    Malformed(&'static str),
    /// The answer has more bytes than it may have.
    TooLarge,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                write!(f, "no answer within {} s", PATIENCE.as_secs())
            }
            Self::Connection(error) => error.fmt(f),
            Self::Malformed(what) => write!(f, "the answer is no HTTP that is understood: {what}"),
            Self::TooLarge => f.write_str("the answer is larger than a provisioning document may be"),
        }
    }
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Malformed("it ends too soon"),
            _ => Self::Connection(error),
        }
    }
}

impl Response {
    /// The only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

/// Asks once. A body of more than `limit` bytes is refused; redirections are answers like others, and not followed.
pub(crate) fn exchange(
    address: SocketAddr,
    request: &Request<'_>,
    limit: usize,
) -> Result<Response, HttpError> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head(request).as_bytes())?;
    read(BufReader::new(Until { stream, end }), limit)
}

/// A connection that ends at an instant, however slowly something comes.
struct Until {
    stream: TcpStream,
    end: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn head(request: &Request<'_>) -> String {
    let Request {
        method,
        target,
        host,
        fields,
    } = request;
    let mut text =
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: */*\r\n");
    if *method != "GET" {
        text.push_str("Content-Length: 0\r\n");
    }
    for (name, value) in *fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// Reads an answer.
pub(crate) fn read(mut source: impl BufRead, limit: usize) -> Result<Response, HttpError> {
    let mut head = source.by_ref().take(HEAD_LIMIT);
    let status = status(&line(&mut head)?)?;
    let mut fields = Vec::new();
    loop {
        let line = line(&mut head)?;
        if line.is_empty() {
            break;
        }
        fields.push(field(&line)?);
    }
    let mut response = Response {
        status,
        fields,
        body: Vec::new(),
    };
    response.body = body(source, &response, limit)?;
    Ok(response)
}

/// A line without its end.
fn line(source: &mut io::Take<impl BufRead>) -> Result<String, HttpError> {
    let mut bytes = Vec::new();
    source.read_until(b'\n', &mut bytes)?;
    match bytes.pop() {
        Some(b'\n') => {}
        _ if source.limit() == 0 => return Err(HttpError::TooLarge),
        _ => return Err(HttpError::Malformed("it ends too soon")),
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    match String::from_utf8(bytes) {
        Ok(line) if !line.contains(|c: char| c.is_control() && c != '\t') => Ok(line),
        _ => Err(HttpError::Malformed("its head is not text")),
    }
}

/// Section 4. An answer that only says that another follows is none: nobody asked for one.
fn status(line: &str) -> Result<u16, HttpError> {
    line.strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.split(' ').next())
        .filter(|status| status.len() == 3)
        .and_then(number)
        .filter(|status| (200..600).contains(status))
        .and_then(|status| u16::try_from(status).ok())
        .ok_or(HttpError::Malformed("it does not begin with a status"))
}

/// Section 5.
fn field(line: &str) -> Result<(String, String), HttpError> {
    let wrong = || HttpError::Malformed("a line of its head is no field");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(wrong());
    }
    let value = value.trim_matches([' ', '\t']).to_owned();
    Ok((name.to_ascii_lowercase(), value))
}

/// Section 6: how long a body is may be said in one way only.
fn body(mut source: impl BufRead, response: &Response, limit: usize) -> Result<Vec<u8>, HttpError> {
    let has = |name: &str| response.fields.iter().any(|(other, _)| other == name);
    match (has("transfer-encoding"), has("content-length")) {
        (true, true) => Err(HttpError::Malformed("it says in two ways how long it is")),
        (true, false) => match response.field("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => chunks(source, limit),
            _ => Err(HttpError::Malformed("its encoding is not known")),
        },
        (false, true) => {
            let length = response
                .field("content-length")
                .and_then(number)
                .ok_or(HttpError::Malformed("its length is no number"))?;
            exactly(&mut source, length, limit)
        }
        (false, false) if response.status == 204 || response.status == 304 => Ok(Vec::new()),
        (false, false) => {
            let mut bytes = Vec::new();
            source.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > limit {
                return Err(HttpError::TooLarge);
            }
            Ok(bytes)
        }
    }
}

/// Section 7.1. What follows the last chunk is of no interest.
fn chunks(mut source: impl BufRead, limit: usize) -> Result<Vec<u8>, HttpError> {
    // Chunks of one byte each take six.
    let mut lines = 6 * (limit as u64 + 1);
    let mut bytes = Vec::new();
    loop {
        let mut head = source.by_ref().take(lines.min(HEAD_LIMIT));
        let size = line(&mut head)?;
        let digits = size.split(';').next().unwrap_or_default().trim_end();
        let is_size = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = u64::from_str_radix(digits, 16)
            .ok()
            .filter(|_| is_size)
            .ok_or(HttpError::Malformed("a chunk has no size"))?;
        if length == 0 {
            return Ok(bytes);
        }
        let left = limit - bytes.len().min(limit);
        bytes.extend(exactly(&mut source, length, left)?);
        let mut end = [0; 2];
        source.read_exact(&mut end)?;
        if end != *b"\r\n" {
            return Err(HttpError::Malformed("a chunk is not as long as it says"));
        }
        lines = lines.saturating_sub(size.len() as u64 + 4).max(1);
    }
}

fn exactly(source: &mut impl BufRead, length: u64, limit: usize) -> Result<Vec<u8>, HttpError> {
    if length > limit as u64 {
        return Err(HttpError::TooLarge);
    }
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(HttpError::Malformed("it ends too soon"));
    }
    Ok(bytes)
}

/// Digits alone: `str::parse` takes a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 20;

    fn parse(answer: &[u8]) -> Result<Response, String> {
        read(answer, LIMIT).map_err(|error| error.to_string())
    }

    #[test]
    fn understands_answers() {
        for (answer, body) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..], &b"{}"[..]),
            // What follows is of nobody's business.
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1", b"{}"),
            (b"HTTP/1.0 404 \r\n\r\nuntil the end", b"until the end"),
            (b"HTTP/1.1 204 No Content\n\n", b""),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                b"abc0123456789",
            ),
        ] {
            assert_eq!(parse(answer).unwrap().body, body);
        }
        let answer = parse(b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nA:\t b c \r\na: d\r\n\r\n").unwrap();
        assert_eq!(answer.status, 301);
        assert_eq!(answer.field("location"), Some("/x"));
        assert_eq!(answer.fields[1], ("a".to_owned(), "b c".to_owned()));
        // Who says two things has said nothing.
        assert_eq!(answer.field("a"), None);
    }

    #[test]
    fn refuses_what_is_none() {
        let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        let chunked = |chunks: &str| head(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"));
        for (answer, words) in [
            (Vec::new(), "ends too soon"),
            (
                b"<html>hello</html>\r\n\r\n".to_vec(),
                "does not begin with a status",
            ),
            (b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), "status"),
            (b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(), "status"),
            (b"HTTP/1.1 +20 OK\r\n\r\n".to_vec(), "status"),
            (b"HTTP/2 200\r\n\r\n".to_vec(), "status"),
            (head("no field\r\n"), "is no field"),
            (head("a b: c\r\n"), "is no field"),
            (head(": c\r\n"), "is no field"),
            (head("a: \x1b[2J\r\n"), "not text"),
            (b"HTTP/1.1 200 \xff\r\n\r\n".to_vec(), "not text"),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n".to_vec(), "ends too soon"),
            (head("Content-Length: 5\r\n\r\n{}"), "ends too soon"),
            (head("Content-Length: 21\r\n"), "larger than"),
            (head("Content-Length: 99999999999999999999\r\n"), "no number"),
            (head("Content-Length: +2\r\n\r\n{}"), "no number"),
            (
                head("Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
                "no number",
            ),
            (
                head("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
                "in two ways",
            ),
            (head("Transfer-Encoding: gzip, chunked\r\n"), "not known"),
            (head(&format!("\r\n{}", "x".repeat(LIMIT + 1))), "larger than"),
            (chunked("x\r\n"), "no size"),
            (chunked("+1\r\nx\r\n"), "no size"),
            (chunked("\r\n"), "no size"),
            (chunked("fffffffff\r\n"), "no size"),
            (chunked("ffffffff\r\n"), "larger than"),
            (chunked("9\r\n012345678\r\nc\r\n0123456789ab\r\n"), "larger than"),
            (chunked("2\r\nabc\r\n"), "not as long as it says"),
            (chunked("2\r\nab"), "ends too soon"),
        ] {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let refused = parse(&answer).is_err_and(|error| error.contains(words));
            assert!(
                refused,
                "{text:?} is not refused as {words:?}: {:?}",
                parse(&answer)
            );
        }
    }

    /// Comes without an end.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn nothing_is_read_without_end() {
        let endless = |head: &'static [u8], rest: &'static [u8]| {
            let source = BufReader::new(head.chain(Endless(rest, 0)));
            read(source, LIMIT).unwrap_err().to_string()
        };
        for (head, rest) in [
            (&b""[..], &b"x"[..]),
            (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
            (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1\r\nx\r\n",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1;long\r\nx\r\n",
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        ] {
            let error = endless(head, rest);
            assert!(error.contains("larger than"), "{error}");
        }
    }

    #[test]
    fn asks_and_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !heard.ends_with(b"\r\n\r\n") {
                reader.read_until(b'\n', &mut heard).unwrap();
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
            String::from_utf8(heard).unwrap()
        });
        let request = Request {
            method: "PUT",
            target: "/token?x=y",
            host: "metadata",
            fields: &[("X-Seconds", "60")],
        };
        let response = exchange(address, &request, LIMIT).unwrap();
        assert_eq!(response.body, b"{}");
        assert_eq!(
            server.join().unwrap(),
            "PUT /token?x=y HTTP/1.1\r\nHost: metadata\r\nConnection: close\r\nAccept: */*\r\nContent-Length: 0\r\n\
             X-Seconds: 60\r\n\r\n"
        );
    }

    #[test]
    fn who_drips_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let dripping = thread::spawn(move || {
            while server.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        let end = begun + Duration::from_millis(200);
        let error = read(BufReader::new(Until { stream, end }), LIMIT).unwrap_err();
        assert!(error.to_string().starts_with("no answer within"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        dripping.join().unwrap();
    }

    proptest! {
        #[test]
        fn never_panics(
            head in proptest::option::of("HTTP/1.1 200 OK\r\n(Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: chunked\r\n){0,2}\r\n"),
            rest in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let bytes = [head.unwrap_or_default().into_bytes(), rest].concat();
            if let Ok(response) = parse(&bytes) {
                prop_assert!(response.body.len() <= LIMIT);
            }
        }

        #[test]
        fn chunks_are_put_together(pieces in proptest::collection::vec("[a-z]{1,4}", 0..5)) {
            let chunks: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
            prop_assert_eq!(parse(answer.as_bytes()).unwrap().body, pieces.concat().into_bytes());
        }
    }
}
