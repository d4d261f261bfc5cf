//! The contract of `Runtime`, against the Docker Engine of this machine and aicert's own Python base image.

mod common;

use aicert_core::conformance::runtime as suite;
use aicert_core::spec::ImageSpec;

macro_rules! conforms {
    ($($name:ident $(($argument:expr))?,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(runtime) = common::runtime().await else { return };
            let prefix = common::prefix();
            let subject = suite::Subject { runtime: &runtime, image: &ImageSpec::Python { minor: 11 }, prefix: &prefix };
            suite::$name(subject $(, $argument)?).await;
        }
    )*};
}

conforms! {
    images_are_found_again,
    a_job_is_reported_as_it_ran,
    output_is_complete_and_never_waited_for,
    nothing_is_given_to_a_shell,
    a_job_has_no_network,
    a_job_is_confined,
    // Set by cargo for every test that it runs.
    the_callers_environment_stays_outside(("CARGO_PKG_DESCRIPTION", env!("CARGO_PKG_DESCRIPTION"))),
    limits_hold,
    nothing_outlives_the_job,
    a_dropped_job_is_cleaned_up,
    a_running_job_is_no_leftover,
    what_cannot_run_does_not_succeed,
}
