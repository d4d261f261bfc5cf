//! Stands in for the server of a machine, and sends zeros over a plain connection: how fast a machine's network is by itself.
//!
//! It is started as the server is, and looks at none of its arguments.

use std::io::Write as _;
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8443")?;
    let zeros = vec![0; 256 << 10];
    for stream in listener.incoming() {
        let mut stream = stream?;
        // Until whoever asked has enough.
        while stream.write_all(&zeros).is_ok() {}
    }
    Ok(())
}
