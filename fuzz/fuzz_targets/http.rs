//! What a metadata service answers to a machine that asks whom it serves.
#![no_main]

// The first process of the image is a program, and this its only part that reads what it was sent and needs nothing else.
#[allow(dead_code)]
#[path = "../../crates/aicert-init/src/http.rs"]
mod http;

use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 10;

fuzz_target!(|bytes: &[u8]| {
    match http::read(bytes, LIMIT) {
        Ok(response) => {
            assert!((200..600).contains(&response.status));
            assert!(
                response.body.len() <= LIMIT,
                "a body is never larger than allowed"
            );
            // Said plainly, it is understood in the same way.
            let mut plain = format!(
                "HTTP/1.1 {} x\r\nContent-Length: {}\r\n\r\n",
                response.status,
                response.body.len()
            )
            .into_bytes();
            plain.extend(&response.body);
            let again = http::read(plain.as_slice(), LIMIT).expect("a plain answer is understood");
            assert_eq!((again.status, again.body), (response.status, response.body));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
