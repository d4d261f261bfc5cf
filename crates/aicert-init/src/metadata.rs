//! What clouds tell a machine when it asks: each over HTTP at an address that leads to the host that the machine is on. The services
//! come up while the machine boots already, so what fails is tried again for a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::failure::{Failure, Outcome};
use crate::http::{self, Request, Response};

/// Where all three clouds have it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const PORT: u16 = 80;
const HOST: &str = "169.254.169.254";

/// How long it may take until the service knows the document. Azure's is to be asked again for 70 s after an update ("Azure Instance
/// Metadata Service", "Errors and debugging", 410).
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A metadata service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    cloud: Cloud,
    address: SocketAddr,
    patience: Duration,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    Azure,
    Ec2,
    ComputeEngine,
}

/// Why an attempt has failed, and whether another may do better.
struct Refusal {
    what: String,
    is_final: bool,
}

impl Cloud {
    /// For people: what was asked for.
    fn place(self) -> &'static str {
        match self {
            Self::Azure => "user data of Azure's instance metadata service",
            Self::Ec2 => "user data of EC2's instance metadata service",
            Self::ComputeEngine => "attribute aicert-provisioning of Compute Engine's metadata server",
        }
    }
}

impl Service {
    /// The one that machines of a cloud can reach.
    pub(crate) fn of(cloud: Cloud) -> Self {
        Self {
            cloud,
            address: (ADDRESS, PORT).into(),
            patience: PATIENCE,
        }
    }

    /// For people: where the document comes from.
    pub(crate) fn place(&self) -> &'static str {
        self.cloud.place()
    }

    /// Gets the document, which has at most `limit` bytes.
    pub(crate) fn document(&self, limit: usize) -> Outcome<Vec<u8>> {
        let end = Instant::now() + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match self.attempt(limit) {
                Ok(document) => return Ok(document),
                Err(refusal) => refusal,
            };
            if refusal.is_final || Instant::now() + pause >= end {
                return Err(Failure::new(
                    format!("cannot get the {}: {}", self.place(), refusal.what),
                    "whoever started the machine did not say whom it serves, or the cloud does not pass it on: start another one",
                ));
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn attempt(&self, limit: usize) -> Result<Vec<u8>, Refusal> {
        let document = match self.cloud {
            Cloud::Azure => self.azure(limit),
            Cloud::Ec2 => self.ec2(limit),
            Cloud::ComputeEngine => self.compute_engine(limit),
        }?;
        if document.trim_ascii().is_empty() {
            return Err(Refusal::for_now("it is empty"));
        }
        Ok(document)
    }

    /// "Azure Instance Metadata Service", "Get user data": text in base64, as it was given when the machine was made.
    fn azure(&self, limit: usize) -> Result<Vec<u8>, Refusal> {
        const TARGET: &str = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
        // Four characters for three bytes, and an end of the line.
        let encoded = limit.div_ceil(3) * 4 + 2;
        let response = self.ask("GET", TARGET, &[("Metadata", "true")], encoded)?;
        let document = STANDARD
            .decode(response.body.trim_ascii())
            .map_err(|error| Refusal::forever(format!("it is not base64: {error}")))?;
        if document.len() > limit {
            return Err(Refusal::forever(http::HttpError::TooLarge.to_string()));
        }
        Ok(document)
    }

    /// "Use the Instance Metadata Service to access instance metadata", version 2: first a token, and then what it opens.
    fn ec2(&self, limit: usize) -> Result<Vec<u8>, Refusal> {
        const TOKEN_LIMIT: usize = 1 << 10;
        let seconds = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
        let response = self.ask("PUT", "/latest/api/token", &seconds, TOKEN_LIMIT)?;
        let token = str::from_utf8(&response.body)
            .ok()
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| Refusal::forever("the service's token is no text"))?;
        let token = [("X-aws-ec2-metadata-token", token)];
        Ok(self.ask("GET", "/latest/user-data", &token, limit)?.body)
    }

    /// "View and query VM metadata": whoever does not say of himself to be the metadata server is not.
    fn compute_engine(&self, limit: usize) -> Result<Vec<u8>, Refusal> {
        const TARGET: &str = "/computeMetadata/v1/instance/attributes/aicert-provisioning";
        const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");
        let response = self.ask("GET", TARGET, &[FLAVOR], limit)?;
        match response.field("metadata-flavor") {
            Some("Google") => Ok(response.body),
            _ => Err(Refusal::for_now(
                "who answers does not say to be Google's metadata server",
            )),
        }
    }

    fn ask(
        &self,
        method: &'static str,
        target: &str,
        fields: &[(&str, &str)],
        limit: usize,
    ) -> Result<Response, Refusal> {
        let request = Request {
            method,
            target,
            host: HOST,
            fields,
        };
        let response = http::exchange(self.address, &request, limit)
            .map_err(|error| Refusal::for_now(format!("{method} http://{HOST}{target}: {error}")))?;
        if response.status == 200 {
            return Ok(response);
        }
        Err(Refusal::for_now(format!(
            "{method} http://{HOST}{target}: status {}",
            response.status
        )))
    }
}

impl Refusal {
    fn for_now(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            is_final: false,
        }
    }

    fn forever(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            is_final: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::*;

    const DOCUMENT: &[u8] = br#"{"client":"sha256:00"}"#;

    /// A service that gives these answers, one for each connection; the last one again and again. It says what it was asked.
    fn service(cloud: Cloud, answers: Vec<Vec<u8>>) -> (Service, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, asked) = channel();
        thread::spawn(move || {
            for index in 0.. {
                let Ok((mut stream, _)) = listener.accept() else {
                    return;
                };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).unwrap();
                }
                // Nobody may listen any more.
                if heard.send(head).is_err() {
                    return;
                }
                let _ = stream.write_all(&answers[index.min(answers.len() - 1)]);
            }
        });
        let patience = Duration::from_secs(2);
        let service = Service {
            cloud,
            address,
            patience,
        };
        (service, asked)
    }

    fn ok(fields: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    const LATE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    const NONE: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    const GOOGLE: &str = "Metadata-Flavor: Google\r\nContent-Type: application/text\r\n";

    #[test]
    fn azure_answers_in_base64() {
        let body = format!("{}\n", STANDARD.encode(DOCUMENT));
        let (service, asked) = service(Cloud::Azure, vec![LATE.to_vec(), ok("", body.as_bytes())]);
        assert_eq!(service.document(100).unwrap(), DOCUMENT);
        for _ in 0..2 {
            let head = asked.recv().unwrap();
            let line =
                "GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text HTTP/1.1\r\n";
            assert!(head.starts_with(line), "{head}");
            assert!(head.contains("\r\nMetadata: true\r\n"), "{head}");
            // "Requests must not contain an X-Forwarded-For header."
            assert!(!head.to_lowercase().contains("forwarded"), "{head}");
        }
    }

    #[test]
    fn ec2_wants_a_token() {
        let answers = vec![
            ok("", b"TOKEN=="),
            NONE.to_vec(),
            ok("", b"SECOND"),
            ok("", DOCUMENT),
        ];
        let (service, asked) = service(Cloud::Ec2, answers);
        assert_eq!(service.document(100).unwrap(), DOCUMENT);
        let heads: Vec<_> = asked.try_iter().collect();
        for (head, line, field) in [
            (
                &heads[0],
                "PUT /latest/api/token",
                "X-aws-ec2-metadata-token-ttl-seconds: 60",
            ),
            (
                &heads[1],
                "GET /latest/user-data",
                "X-aws-ec2-metadata-token: TOKEN==",
            ),
            (
                &heads[2],
                "PUT /latest/api/token",
                "X-aws-ec2-metadata-token-ttl-seconds: 60",
            ),
            (
                &heads[3],
                "GET /latest/user-data",
                "X-aws-ec2-metadata-token: SECOND",
            ),
        ] {
            assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
        }
    }

    #[test]
    fn compute_engine_says_who_it_is() {
        let (service, asked) = service(
            Cloud::ComputeEngine,
            vec![NONE.to_vec(), ok("", DOCUMENT), ok(GOOGLE, DOCUMENT)],
        );
        assert_eq!(service.document(100).unwrap(), DOCUMENT);
        let heads: Vec<_> = asked.try_iter().collect();
        assert_eq!(heads.len(), 3);
        for head in heads {
            let line = "GET /computeMetadata/v1/instance/attributes/aicert-provisioning HTTP/1.1\r\n";
            assert!(head.starts_with(line), "{head}");
            assert!(head.contains("\r\nMetadata-Flavor: Google\r\n"), "{head}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused_in_words() {
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n";
        let redirection = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        for (cloud, answer, words) in [
            (Cloud::Azure, NONE.to_vec(), "status 404"),
            (Cloud::Azure, LATE.to_vec(), "status 503"),
            (Cloud::Azure, redirection.to_vec(), "status 302"),
            (Cloud::Azure, ok("", b"<html>"), "not base64"),
            (Cloud::Azure, ok("", b""), "it is empty"),
            (
                Cloud::Azure,
                ok("", STANDARD.encode([0; 31]).as_bytes()),
                "larger than",
            ),
            (Cloud::Azure, ok("", &[b'A'; 47]), "larger than"),
            (Cloud::Ec2, ok("", b"a b"), "token is no text"),
            (Cloud::Ec2, ok("", b""), "token is no text"),
            (Cloud::Ec2, ok("", &[b'x'; 2000]), "larger than"),
            (Cloud::ComputeEngine, ok("", b"{}"), "does not say to be"),
            (
                Cloud::ComputeEngine,
                ok("Metadata-Flavor: Googly\r\n", b"{}"),
                "does not say to be",
            ),
            (Cloud::ComputeEngine, ok(GOOGLE, &[b'x'; 31]), "larger than"),
            (Cloud::ComputeEngine, chunks.to_vec(), "larger than"),
            (
                Cloud::ComputeEngine,
                b"SSH-2.0-x\r\n".to_vec(),
                "no HTTP that is understood",
            ),
        ] {
            let (mut service, _asked) = service(cloud, vec![answer]);
            service.patience = Duration::from_millis(300);
            let failure = service.document(30).unwrap_err().to_string();
            assert!(failure.contains(words), "{failure}");
            assert!(failure.contains(service.place()), "{failure}");
            assert!(failure.contains("start another one"), "{failure}");
        }
    }

    #[test]
    fn who_is_not_there_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let service = Service {
            cloud: Cloud::Ec2,
            address,
            patience: Duration::from_millis(700),
        };
        let begun = Instant::now();
        let failure = service.document(30).unwrap_err().to_string();
        assert!(failure.contains("refused"), "{failure}");
        assert!(begun.elapsed() >= FIRST_PAUSE, "{:?}", begun.elapsed());
    }
}
