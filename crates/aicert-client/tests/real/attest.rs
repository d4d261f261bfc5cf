//! Attesting a real server.

use aicert_client::{Client, ClientError, Identity};
use aicert_verify::Cause;
use aicert_verify::attestation::AttestationFault;
use tokio::net::TcpListener;

use crate::middle::Middle;
use crate::scene::{Scene, job_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_attested_for_its_connection() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let machine = scene.client().attest(&scene.options()).await.unwrap();
    let verified = machine.attestation().unwrap();
    assert!(verified.is_simulated());
    assert_eq!(verified.image(), None);
    assert_eq!(machine.session().endpoint, scene.address);
    // A server without a machine around it is refused by everybody who did not ask for that.
    let mut options = scene.options();
    options.dangerous_accept_unmeasured_machine = false;
    let error = scene.client().attest(&options).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("nothing shows what this machine has booted"),
        "{error}"
    );
    // There is no such job, and the server says so.
    let error = machine.status(&job_id()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Problem { status: 404, .. }),
        "{error}"
    );
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_in_between_is_refused_even_with_the_clients_key() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let middle = Middle::decrypting(scene.address, &scene.identity).await;
    let client = scene.client_at(middle.address);
    let error = client.attest(&scene.options()).await.unwrap_err();
    let ClientError::Rejected(rejection) = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(
            rejection.failures()[0].cause(),
            Cause::Attestation(AttestationFault::OtherTlsKey { .. })
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("somebody stands between you and the machine")
    );
    // All that it could read is the question.
    let heard = middle.heard();
    assert!(heard.starts_with("GET /v1/attestation?nonce="), "{heard}");
    assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");
    // And it does not help to stand there later.
    let machine = scene.client().attest(&scene.options()).await.unwrap();
    let mut session = machine.session().clone();
    session.endpoint = middle.address;
    let before = middle.heard().len();
    let later = scene.client().resume(session).unwrap();
    let error = later.status(&job_id()).await.unwrap_err();
    assert!(matches!(error, ClientError::Changed { .. }), "{error}");
    assert_eq!(middle.heard().len(), before);
    scene.stop().await;
}

/// Who stands in between without decrypting is the network.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_passed_on_as_it_is_is_attested() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let network = Middle::cutting(scene.address, 1 << 30, 0).await;
    scene
        .client_at(network.address)
        .attest(&scene.options())
        .await
        .unwrap();
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_that_they_are() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let stranger = Client::new(scene.address, Identity::generate().unwrap());
    let error = stranger.attest(&scene.options()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error:?}");
    assert!(!error.is_retryable());
    scene.stop().await;
}

/// The machine is reset: its key is new, whoever asks, and nothing goes to it that was meant for the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_is_another() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let machine = scene.client().attest(&scene.options()).await.unwrap();
    let (address, identity) = (scene.address, scene.identity.clone());
    let tpm = scene.stop().await;
    let error = machine.status(&job_id()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    let scene = Scene::with(tpm, listener, identity).await;
    let error = machine.status(&job_id()).await.unwrap_err();
    assert!(matches!(error, ClientError::Changed { .. }), "{error:?}");
    let again = scene.client().attest(&scene.options()).await.unwrap();
    assert_ne!(again.session().tls_key, machine.session().tls_key);
    scene.stop().await;
}
