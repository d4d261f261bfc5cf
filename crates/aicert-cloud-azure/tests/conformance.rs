//! What every provider must do, on the stand-in for Azure.

mod support;

use aicert_cloud_testing::azure::{Azure, Settings};
use aicert_core::cloud::MachineId;
use aicert_core::conformance::cloud as suite;

use support::{job, provider};

/// Slow, late in knowing of its own deeds, and with one group on a page.
fn slow() -> Settings {
    Settings {
        polls: 2,
        deletion_polls: 4,
        unlisted: 3,
        lingering: 2,
        page: 1,
        nested: 0,
    }
}

#[tokio::test]
async fn the_suite_passes() {
    for settings in [Settings::default(), slow()] {
        let Some(azure) = Azure::start(settings) else {
            return;
        };
        let provider = provider(&azure);
        suite::provision_list_destroy(&provider, &job("a")).await;
        suite::machines_are_independent(&provider, &job("b"), &job("c")).await;
        suite::destroying_nothing_succeeds(&provider, &MachineId("unknown".into())).await;
        suite::destroying_nothing_succeeds(&provider, &MachineId("../No Job".into())).await;
        suite::a_dropped_provision_is_listed_or_nothing(&provider, &job("d")).await;
        azure.assert_clean();
        assert!(azure.left().is_empty(), "{:?}", azure.left());
    }
}
