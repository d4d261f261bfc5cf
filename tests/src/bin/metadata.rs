//! A cloud's metadata service, for one request: reads it from standard input, as it came over a connection, and answers on standard
//! output. It is as strict as the clouds say theirs are, and late: the first request finds nothing.
//!
//! usage: metadata azure|ec2|compute-engine DOCUMENT JOURNAL
//!
//! The provisioning document is in the file DOCUMENT; what was asked, and what was answered, goes to the end of the file JOURNAL.

#![allow(
    clippy::unwrap_used,
    reason = "a test's own server that cannot go on has failed"
)]

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, Write as _, stdin, stdout};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const TOKEN: &str = "AQAEAJ-token-of-this-machine==";

struct Request {
    line: String,
    fields: Vec<(String, String)>,
}

struct Answer {
    status: u16,
    fields: &'static str,
    body: Vec<u8>,
    is_chunked: bool,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (cloud, document, journal) = (
        arguments.next().unwrap(),
        fs::read(arguments.next().unwrap()).unwrap(),
        arguments.next().unwrap(),
    );
    let request = Request::read();
    let is_first = fs::metadata(&journal).map_or(true, |journal| journal.len() == 0);
    let answer = match cloud.as_str() {
        _ if is_first => Answer::of(503),
        "azure" => azure(&request, &document),
        "ec2" => ec2(&request, document),
        "compute-engine" => compute_engine(&request, document),
        other => panic!("there is no cloud {other:?}"),
    };
    let mut journal = OpenOptions::new()
        .create(true)
        .append(true)
        .open(journal)
        .unwrap();
    writeln!(journal, "{}: {}", request.line, answer.status).unwrap();
    answer.write();
}

/// "Azure Instance Metadata Service", "Security and authentication", "Get user data".
fn azure(request: &Request, document: &[u8]) -> Answer {
    let target = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
    if request.field("metadata") != Some("true") || request.field("x-forwarded-for").is_some() {
        return Answer::of(400);
    }
    if request.line != format!("GET {target} HTTP/1.1") {
        return Answer::of(404);
    }
    Answer {
        body: STANDARD.encode(document).into_bytes(),
        is_chunked: true,
        ..Answer::of(200)
    }
}

/// "Use the Instance Metadata Service to access instance metadata", version 2 alone.
fn ec2(request: &Request, document: Vec<u8>) -> Answer {
    let seconds = request.field("x-aws-ec2-metadata-token-ttl-seconds");
    let seconds = seconds.and_then(|seconds| seconds.parse::<u32>().ok());
    match request.line.as_str() {
        "PUT /latest/api/token HTTP/1.1"
            if seconds.is_some_and(|seconds| (1..=21_600).contains(&seconds)) =>
        {
            Answer {
                body: TOKEN.into(),
                ..Answer::of(200)
            }
        }
        "PUT /latest/api/token HTTP/1.1" => Answer::of(400),
        _ if request.field("x-aws-ec2-metadata-token") != Some(TOKEN) => Answer::of(401),
        "GET /latest/user-data HTTP/1.1" => Answer {
            body: document,
            ..Answer::of(200)
        },
        _ => Answer::of(404),
    }
}

/// "View and query VM metadata".
fn compute_engine(request: &Request, document: Vec<u8>) -> Answer {
    let answer = |status| Answer {
        fields: "Metadata-Flavor: Google\r\nServer: Metadata Server for VM\r\n",
        ..Answer::of(status)
    };
    if request.field("metadata-flavor") != Some("Google") {
        return answer(403);
    }
    match request.line.as_str() {
        "GET /computeMetadata/v1/instance/attributes/aicert-provisioning HTTP/1.1" => Answer {
            body: document,
            ..answer(200)
        },
        _ => answer(404),
    }
}

impl Request {
    fn read() -> Self {
        let mut lines = stdin().lock().lines().map(|line| line.unwrap_or_default());
        Self {
            line: lines.next().unwrap_or_default(),
            fields: lines
                .take_while(|line| !line.is_empty())
                .filter_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
                })
                .collect(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Answer {
    fn of(status: u16) -> Self {
        Self {
            status,
            fields: "",
            body: Vec::new(),
            is_chunked: false,
        }
    }

    fn write(self) {
        let Self {
            status, fields, body, ..
        } = self;
        let (length, body) = if self.is_chunked {
            let chunks = body
                .chunks(100)
                .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            let chunks: Vec<u8> = chunks.chain(*b"0\r\n\r\n").collect();
            ("Transfer-Encoding: chunked".to_owned(), chunks)
        } else {
            (format!("Content-Length: {}", body.len()), body)
        };
        let head = format!("HTTP/1.1 {status} X\r\n{fields}{length}\r\n\r\n");
        let mut out = stdout().lock();
        out.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        out.flush().unwrap();
    }
}
