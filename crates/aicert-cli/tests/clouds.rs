//! Machines in clouds, as far as nobody has to be asked for it: what is remembered, and what a build can do.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]
#![cfg_attr(
    any(feature = "aws", feature = "azure", feature = "gcp"),
    allow(
        dead_code,
        unused_imports,
        reason = "most of this is about builds without clouds"
    )
)]

mod desk;

use desk::Desk;
use insta::assert_snapshot;

const AWS: &str =
    "{provider: aws, region: eu-west-1, image: ami-0123456789abcdef0, referenceValues: base.json}";

fn configuration(desk: &Desk, machine: &str) {
    desk.write(
        "aicert.yaml",
        format!(
            "kind: python\npythonVersion: 11\nsource: {{type: directory, path: code}}\nmachine: {machine}\n"
        ),
    )
    .write(
        "base.json",
        r#"{"version": "aicert/reference-values/v1", "images": []}"#,
    );
}

/// What a run leaves that was killed, with a machine at a place.
fn killed_run(desk: &Desk, job: &str, place: serde_json::Value) {
    let folder = format!("state/runs/{job}");
    std::fs::create_dir_all(desk.path(&folder)).unwrap();
    desk.private("state/runs");
    let mut record = serde_json::json!({
        "job": job,
        "created": "2026-01-31T23:59:59Z",
        "process": 4_000_000,
        "configuration": "/job/aicert.yaml",
        "config": format!("sha256:{}", "0".repeat(64)),
        "targets": {"proof": "/job/proof.json", "outputs": "/job/model", "simulated": false, "replace": false},
        "reference_values": [],
        "policy": null,
        "nonce": "0".repeat(64),
        "machine": null,
        "endpoint": null,
        "boot_limit": 600,
        "phase": "submitted",
    });
    let serde_json::Value::Object(place) = place else {
        panic!()
    };
    record.as_object_mut().unwrap().extend(place);
    desk.write(&format!("{folder}/owner.lock"), "")
        .write(&format!("{folder}/record.json"), record.to_string());
}

fn remembered(desk: &Desk, names: &[&str]) {
    std::fs::create_dir_all(desk.path("state/places")).unwrap();
    desk.private("state/places");
    for name in names {
        desk.write(&format!("state/places/{name}"), "");
    }
}

#[test]
#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
fn a_build_without_a_cloud_says_how_to_get_one_that_has_it() {
    let desk = Desk::new();
    configuration(&desk, AWS);
    assert_snapshot!(desk.run(&["run"]), @r#"
    exit code 2
    --- stderr
    error: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    "#);
    // Nothing is remembered of what cannot be made.
    assert!(!desk.path("state/places").exists() && !desk.path("state/runs").exists());
    configuration(
        &desk,
        "{provider: gcp, project: my-project, zone: europe-west4-a, image: projects/my-project/global/images/base, referenceValues: base.json}",
    );
    assert_snapshot!(desk.run(&["run", "--json"]), @r#"
    exit code 2
    --- stderr
    {"causes":[],"event":"error","exit_code":2,"help":"in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes","message":"this build of aicert knows nothing of Google Compute Engine"}
    "#);
}

/// A place that cannot be asked hides nothing of others.
#[test]
#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
fn places_that_cannot_be_asked_are_named() {
    let desk = Desk::new();
    remembered(&desk, &["aws_eu-west-1_ada"]);
    killed_run(&desk, "a-qemu", serde_json::json!({"provider": "qemu"}));
    killed_run(
        &desk,
        "b-aws",
        serde_json::json!({
            "provider": "aws", "place": "eu-west-1", "owner": "ada", "machine": "b-aws",
            "access": ["203.0.113.7/32"], "gpus": 1, "lifetime": 86_400,
        }),
    );
    // Never remembered by itself: its record says where it is.
    killed_run(
        &desk,
        "c-gcp",
        serde_json::json!({"provider": "gcp", "place": "my-project", "owner": "bob"}),
    );
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 1
    --- stdout
    JOB     PROVIDER        STATE                          PHASE        SINCE                 UNTIL                 CONFIGURATION
    a-qemu  qemu            no machine, nobody follows it  has the job  2026-01-31T23:59:59Z                        /job/aicert.yaml
    b-aws   aws eu-west-1   unknown, nobody follows it     has the job  2026-01-31T23:59:59Z  2026-02-01T23:59:59Z  /job/aicert.yaml
    c-gcp   gcp my-project  unknown, nobody follows it     has the job  2026-01-31T23:59:59Z  unknown               /job/aicert.yaml
    --- stderr
    warning: b-aws: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    warning: c-gcp: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine
    error: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    error: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "--all"]), @r#"
    exit code 1
    --- stdout
    Forgot the job a-qemu.
    --- stderr
    error: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    error: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes
    error: it is not known whether there is a machine for the job b-aws: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes; `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    error: it is not known whether there is a machine for the job c-gcp: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes; `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    "#);
    assert!(desk.path("state/runs/b-aws").exists() && !desk.path("state/runs/a-qemu").exists());
    assert_snapshot!(desk.run(&["attach", "aws"]), @r#"
    exit code 1
    --- stderr
    warning: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2; in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    warning: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine; in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes
    error: nobody can go on with the job b-aws: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    "#);
    // Whoever insists is told that the machine stays.
    assert_snapshot!(desk.run(&["machines", "destroy", "--all", "--force"]), @r#"
    exit code 1
    --- stdout
    Forgot 2 jobs.
    --- stderr
    error: machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    error: machines at gcp my-project cannot be looked at: this build of aicert knows nothing of Google Compute Engine
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features gcp` installs one that does, and `cargo build --release --locked -p aicert-cli --features gcp` builds it; that takes some minutes
    "#);
    for place in ["aws_eu-west-1_ada", "gcp_my-project_bob"] {
        let path = desk.path(&format!("state/places/{place}"));
        assert!(path.exists(), "there may be a machine at {place}");
    }
}

#[test]
#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
fn a_configuration_names_a_place_as_well() {
    let desk = Desk::new();
    // Nothing but the machine needs to be right.
    desk.write(
        "other.yaml",
        format!("packageIndex: {{credentialsEnv: AICERT_TEST_NOT_SET}}\nmachine: {AWS}\n"),
    );
    assert_snapshot!(desk.run(&["machines", "list", "--config", "other.yaml", "--json"]), @r#"
    exit code 1
    --- stdout
    {
      "machines": [],
      "owner": "ada",
      "places": [
        {
          "owner": "ada",
          "place": "eu-west-1",
          "provider": "aws"
        }
      ]
    }
    --- stderr
    {"causes":[],"event":"error","exit_code":1,"help":"in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes","message":"machines at aws eu-west-1 cannot be looked at: this build of aicert knows nothing of Amazon EC2"}
    "#);
    assert!(
        !desk.path("state/places").exists(),
        "it is looked at, and not remembered"
    );
    desk.write("other.yaml", "machine: {provider: aws}\n");
    let mut command = desk.command(&["machines", "destroy", "--all", "--config", "other.yaml"]);
    let output = command
        .env_remove("AWS_REGION")
        .env_remove("AWS_DEFAULT_REGION")
        .output();
    assert_snapshot!(desk.show(&output.unwrap()), @r#"
    exit code 2
    --- stderr
    error: other.yaml cannot be used: 3 problems

    other.yaml:1:10: `region` is missing, and neither AWS_REGION nor AWS_DEFAULT_REGION is set
      |
    1 | machine: {provider: aws}
      |          ^
      = help: add `region`, such as eu-west-1; the image must be there too

    other.yaml:1:10: `image` is missing: what shall the machine boot?
      |
    1 | machine: {provider: aws}
      |          ^
      = help: `image` is the cloud's name of a published base image; `aicert image publish` makes one, and prints its name

    other.yaml:1:10: `referenceValues` is missing: what must the image measure?
      |
    1 | machine: {provider: aws}
      |          ^
      = help: `referenceValues` names a file; `aicert image measure IMAGE --json` writes it
    "#);
    desk.write("other.yaml", "machine: {provider: qemu, image: x}\n");
    assert_snapshot!(desk.run(&["machines", "logs", "job", "--config", "other.yaml"]), @r#"
    exit code 2
    --- stderr
    error: there is no job "job"
    help: `aicert machines list` shows those that there are
    "#);
}

#[test]
fn what_names_no_place_is_no_reason_to_forget_anything() {
    let desk = Desk::new();
    remembered(&desk, &["somewhere", "moon_base_ada"]);
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 1
    --- stderr
    error: DESK/state/places/somewhere names no place of machines
    help: remove it, if you know that nothing is left there
    error: machines at moon base cannot be looked at: this build of aicert knows no provider `moon`
    "#);
}

#[test]
fn an_owner_is_a_name_that_every_cloud_takes() {
    let desk = Desk::new();
    let owner = |name: &str| {
        let mut command = desk.command(&["machines", "list", "--json"]);
        desk.show(&command.env("AICERT_OWNER", name).output().unwrap())
    };
    assert_snapshot!(owner("Ada Lovelace"), @r#"
    exit code 2
    --- stderr
    {"causes":["\"Ada Lovelace\" is no name of an owner: expected 1 to 60 lowercase letters, digits and `-`, a letter first"],"event":"error","exit_code":2,"help":"it says whose machines in clouds are yours, on every computer that you use","message":"AICERT_OWNER names nobody"}
    "#);
    // Without it, the same every time.
    let derived = owner("");
    assert!(
        derived.contains("\"owner\": \"") && derived == owner(""),
        "{derived}"
    );
}

#[test]
fn images_are_published_where_it_is_said() {
    let desk = Desk::new();
    desk.write("image.raw", [0; 512]);
    let publish = |arguments: &[&str]| {
        let mut command =
            desk.command(&[&["image", "publish", "image.raw", "--provider"], arguments].concat());
        for name in [
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AZURE_SUBSCRIPTION_ID",
            "GOOGLE_CLOUD_PROJECT",
        ] {
            command.env_remove(name);
        }
        desk.show(&command.output().unwrap())
    };
    assert_snapshot!(publish(&["aws"]), @r#"
    exit code 2
    --- stderr
    error: `--region` is missing
    help: add `--region`, or set AWS_REGION, or set AWS_DEFAULT_REGION
    "#);
    assert_snapshot!(publish(&["azure", "--region", "westeurope"]), @r#"
    exit code 2
    --- stderr
    error: `--subscription` is missing
    help: add `--subscription`, or set AZURE_SUBSCRIPTION_ID
    "#);
    assert_snapshot!(publish(&["gcp", "--region", "europe-west4"]), @r#"
    exit code 2
    --- stderr
    error: `--region` is of another cloud
    help: here there are --project, --bucket
    "#);
    assert_snapshot!(publish(&["moon"]), @r#"
    exit code 2
    --- stderr
    error: invalid value 'moon' for '--provider <CLOUD>'
      [possible values: azure, aws, gcp]

    For more information, try '--help'.
    "#);
    #[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
    assert_snapshot!(publish(&["aws", "--region", "eu-west-1"]), @r#"
    exit code 2
    --- stderr
    error: this build of aicert knows nothing of Amazon EC2
    help: in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features aws` installs one that does, and `cargo build --release --locked -p aicert-cli --features aws` builds it; that takes some minutes
    "#);
}
