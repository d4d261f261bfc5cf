//! Whether jobs can run.

use aicert_core::progress::Progress;
use aicert_core::runtime::Runtime as _;
use aicert_core::spec::ImageSpec;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};

/// Whether jobs cannot run here, because there is no Docker engine, and says so. Where there is one, it has the image of Python 3.11
/// from now on: it is built if it must be.
///
/// # Panics
///
/// When there is no Docker engine and `CI` is set; when the image cannot be built.
pub async fn no_docker() -> bool {
    static BUILD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let runtime = DockerRuntime::new(DockerConfig::new());
    if let Err(error) = runtime.check().await {
        assert!(std::env::var_os("CI").is_none(), "no usable Docker: {error}");
        println!("skipped: no usable Docker: {error}");
        return true;
    }
    let _one_at_a_time = BUILD.lock().await;
    let image = ImageSpec::Python { minor: 11 };
    runtime
        .resolve_image(&image, &Progress::ignored())
        .await
        .expect("the base image");
    false
}
