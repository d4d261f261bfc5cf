//! What the tests against a real engine share; each uses a part of it.
#![allow(dead_code)]
#![allow(clippy::print_stdout)] // a skipped test says so

use std::sync::atomic::{AtomicU32, Ordering};

use aicert_core::progress::Progress;
use aicert_core::runtime::Runtime as _;
use aicert_core::spec::ImageSpec;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use tokio::sync::Mutex;

/// A runtime whose base image is there; `None`, with a message, where there is no Docker. Fails instead where `CI` is set.
pub(crate) async fn runtime() -> Option<DockerRuntime> {
    configured(DockerConfig::new()).await
}

/// The same, configured.
pub(crate) async fn configured(config: DockerConfig) -> Option<DockerRuntime> {
    static BUILD: Mutex<()> = Mutex::const_new(());
    let runtime = DockerRuntime::new(config);
    if let Err(error) = runtime.check().await {
        assert!(
            std::env::var_os("CI").is_none(),
            "no usable Docker: {error}: {:?}",
            error.advice()
        );
        println!("skipped: no usable Docker: {error}");
        return None;
    }
    // Once, rather than once in every test.
    let _one_at_a_time = BUILD.lock().await;
    runtime
        .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
        .await
        .expect("the base image");
    Some(runtime)
}

/// The start of this test's job ids, different in every test and process.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
