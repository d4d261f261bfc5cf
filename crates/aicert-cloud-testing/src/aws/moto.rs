//! moto's server.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// Serves on a port that the kernel chooses, until nobody holds the other end of its standard input: then whoever started it has
/// ended, however that was.
const PROGRAM: &str = r#"
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"#;

/// The one server of this process.
struct Moto {
    address: SocketAddr,
    _child: Child,
    /// Open as long as this process is there.
    _input: ChildStdin,
}

/// Where the tools for tests of clouds are; nothing, with a message, when they were not got. In CI they must be there.
pub(crate) fn tools() -> Option<PathBuf> {
    let folder = match std::env::var_os("AICERT_TEST_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-tools"),
    };
    if folder.join("version").is_file() {
        return Some(folder);
    }
    let message = format!(
        "there are no tools for tests of clouds in {}: run scripts/test-tools.sh",
        folder.display()
    );
    assert!(std::env::var_os("CI").is_none(), "{message}");
    #[allow(
        clippy::print_stderr,
        reason = "tells whoever reads the tests' output why one does nothing"
    )]
    {
        eprintln!("skipped: {message}");
    }
    None
}

/// Where the server is, which is started when it is first asked for.
pub(crate) fn address(tools: &Path) -> SocketAddr {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(|| start(tools)).address
}

fn start(tools: &Path) -> Moto {
    let mut child = Command::new(tools.join("venv/bin/python"))
        .args(["-c", PROGRAM])
        .env_remove("PYTHONPATH")
        // What images Amazon has itself is of no use here, and takes long to load.
        .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Python of the test tools");
    let input = child.stdin.take().expect("piped");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("moto's port");
    let port: u16 = line.trim().parse().expect("moto's server starts");
    Moto {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        _child: child,
        _input: input,
    }
}
