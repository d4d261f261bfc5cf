//! Each rule of a policy, kept and broken, over logs that the log itself accepts.

use std::time::Duration;

use aicert_core::certificate::PlatformKind;
use aicert_core::digest::{BootLogDigest, ConfigDigest, FileDigest, ImageDigest};
use aicert_core::event::*;
use aicert_core::log::MeasurementLog;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, TpmClock};
use aicert_core::tree::{Entry, Tree};

use super::inspect::BootFound;
use super::*;

const DAY: i64 = 86_400;
const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
const COMMIT: &str = "sha1:0123456789abcdef0123456789abcdef01234567";

/// What a test varies. Starts as a good proof from a real machine.
struct Proof {
    inputs: Vec<InputMeasured>,
    packages: Vec<Package>,
    image: &'static str,
    closed: i64,
    platform: PlatformKind,
    boot: Option<BootFound<'static>>,
    key_valid_from: i64,
    answers_nonce: bool,
}

impl Default for Proof {
    fn default() -> Self {
        let mut code = input("code", "https://example.org/code.git", &["main.py", "util.py"]);
        code.kind = "git".into();
        code.resolved = vec![Pin {
            kind: PinKind::Commit,
            value: COMMIT.into(),
        }];
        Self {
            inputs: vec![code, input("data", "https://example.org/data.bin", &["data.bin"])],
            packages: vec![package("numpy", "1.26.4"), package("scikit-learn", "1.5.0")],
            image: "aicert/python:3.11",
            closed: NOW - DAY,
            platform: PlatformKind::GceShieldedVm,
            boot: Some(BOOTED),
            key_valid_from: NOW - 2 * DAY,
            answers_nonce: false,
        }
    }
}

const BOOTED: BootFound<'static> = BootFound {
    image: Some("aicert-base 0.2.0"),
    firmware: Some("Compute Engine 2025-11"),
    secure_boot: Some(false),
};

fn input(name: &str, origin: &str, files: &[&str]) -> InputMeasured {
    let entries = files.iter().map(|path| {
        let content = format!("content of {path}");
        Entry::file(
            path.parse().unwrap(),
            false,
            content.len() as u64,
            FileDigest::of(content.as_bytes()),
        )
    });
    let folder = hex::encode(name);
    let destination = match files {
        [only] => format!("/workspace/resources/{folder}/{only}"),
        _ => "/workspace/src".into(),
    };
    let resolved = match files {
        [only] => vec![Pin {
            kind: PinKind::Sha256,
            value: FileDigest::of(format!("content of {only}").as_bytes()).to_string(),
        }],
        _ => Vec::new(),
    };
    InputMeasured {
        name: name.into(),
        kind: "file".into(),
        origin: origin.into(),
        requested: Vec::new(),
        resolved,
        destination,
        tree: Tree::from_entries(entries.collect()).unwrap().measured(),
    }
}

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.into(),
        version: version.into(),
        file: format!("{name}-{}.whl", hex::encode(version)),
        hash: FileDigest::of(name.as_bytes()),
    }
}

impl Proof {
    fn with_input(mut self, input: InputMeasured) -> Self {
        self.inputs.push(input);
        self
    }

    fn with_packages(mut self, packages: &[(&str, &str)]) -> Self {
        self.packages = packages
            .iter()
            .map(|(name, version)| package(name, version))
            .collect();
        self
    }

    fn on_bare_tpm(mut self) -> Self {
        self.platform = PlatformKind::LocalCa;
        self.boot = None;
        self
    }

    /// What a policy finds wrong.
    fn faults(&self, policy: &Policy) -> Vec<PolicyFault> {
        let built = ImageDigest::of(b"built");
        let time = Timestamp::from_unix(self.closed);
        let mut contents = vec![
            EventContent::JobOpened(JobOpened {
                schema: LOG_SCHEMA.into(),
                tool: Tool {
                    name: "aicert".into(),
                    version: "0.1.0".into(),
                },
                config: ConfigDigest::of(b"kind: python\n"),
                time,
                tpm: TpmClock {
                    clock: 1_000,
                    reset_count: 2,
                    restart_count: 1,
                },
                boot_event_log: BootLogDigest::of(b""),
                banks: vec![PcrBank::Sha256],
            }),
            EventContent::Machine(Machine {
                provider: "gcp".into(),
                instance_type: "n2d".into(),
                region: "here".into(),
                gpus: Vec::new(),
            }),
        ];
        contents.extend(self.inputs.iter().cloned().map(EventContent::InputMeasured));
        contents.extend([
            EventContent::ImageResolved(ImageResolved {
                requested: self.image.into(),
                digest: ImageDigest::of(b"base"),
            }),
            EventContent::DependenciesMeasured(DependenciesMeasured {
                packages: self.packages.clone(),
            }),
            EventContent::ContainerBuilt(ContainerBuilt { image: built }),
        ]);
        let events = contents.len() as u64;
        contents.extend([
            EventContent::Sealed(Sealed { events }),
            EventContent::ExecutionStarted(ExecutionStarted {
                time,
                image: built,
                command: vec!["python3".into(), "main.py".into()],
                working_directory: "/workspace/src".into(),
                environment: Vec::new(),
                network: Network::None,
                gpus: Vec::new(),
            }),
            EventContent::ExecutionFinished(ExecutionFinished {
                time,
                outcome: ExecutionOutcome::Exited,
                exit_code: 0,
                wall_milliseconds: 4_000,
            }),
            EventContent::OutputsMeasured(OutputsMeasured {
                folder: "/workspace/outputs".into(),
                tree: input("out", "x", &["model.bin"]).tree,
            }),
            EventContent::Closed(Closed {
                time,
                result: JobResult::Succeeded,
            }),
        ]);
        let mut log = MeasurementLog::new();
        for content in contents {
            let event = log.next_event(content).unwrap_or_else(|error| panic!("{error}"));
            log.push(event).unwrap();
        }
        policy.inspect(&Facts {
            log: &log.complete().unwrap(),
            machine: MachineFound {
                platform: self.platform,
                boot: self.boot,
            },
            key_valid_from: Timestamp::from_unix(self.key_valid_from),
            at: Timestamp::from_unix(NOW),
            answers_nonce: self.answers_nonce,
        })
    }

    #[track_caller]
    fn meets(&self, policy: &Policy) {
        assert_eq!(self.faults(policy), []);
    }

    /// Asserts that exactly one rule fails, and says so with these words.
    #[track_caller]
    fn fails(&self, policy: &Policy, name: &str, words: &[&str]) {
        let faults = self.faults(policy);
        let [fault] = faults.as_slice() else {
            panic!("expected {name} alone, found {faults:?}");
        };
        assert_eq!(fault.name(), name);
        assert_eq!(fault.party(), crate::Party::Builder);
        assert!(!fault.advice().is_empty());
        for word in words {
            assert!(fault.to_string().contains(word), "{word:?} is not in: {fault}");
        }
    }
}

fn names(faults: &[PolicyFault]) -> Vec<&'static str> {
    faults.iter().map(PolicyFault::name).collect()
}

fn forbid(package: &str) -> Policy {
    Policy::default().forbidding(package.parse().unwrap())
}

fn pin(name: &str, version: &str) -> Policy {
    Policy::default().pinning(name.parse().unwrap(), version.parse().unwrap())
}

#[test]
fn the_default_accepts_a_known_real_machine_and_nothing_that_weakens_the_proof() {
    let policy = Policy::default();
    Proof::default().meets(&policy);
    Proof::default()
        .on_bare_tpm()
        .fails(&policy, "Simulated", &["local-ca"]);
    let booted = |boot| Proof {
        boot,
        ..Proof::default()
    };
    let other_firmware = BootFound {
        firmware: None,
        ..BOOTED
    };
    booted(Some(other_firmware)).fails(&policy, "Firmware", &["none of them"]);
    let other_image = BootFound {
        image: None,
        ..BOOTED
    };
    booted(Some(other_image)).fails(&policy, "ImageUnknown", &["ran another"]);
    // A real machine that measured nothing is no machine that is known.
    assert_eq!(names(&booted(None).faults(&policy)), ["ImageUnknown", "Firmware"]);
}

#[test]
fn a_root_given_by_hand_is_accepted_and_no_more() {
    let policy = Policy::for_own_root();
    Proof::default().on_bare_tpm().meets(&policy);
    Proof::default().meets(&policy);
    // A simulated machine that booted something is held to the same rules as a real one.
    let machine = Proof {
        boot: Some(BootFound {
            firmware: None,
            image: None,
            ..BOOTED
        }),
        ..Proof::default().on_bare_tpm()
    };
    assert_eq!(names(&machine.faults(&policy)), ["ImageUnknown", "Firmware"]);
}

#[test]
fn platforms_are_held_to_the_list() {
    let azure = Policy::default().on([PlatformKind::AzureTrustedLaunch]);
    Proof::default().fails(
        &azure,
        "Platform",
        &["azure-trusted-launch; the evidence is from gce-shielded-vm"],
    );
    Proof {
        platform: PlatformKind::AzureTrustedLaunch,
        ..Proof::default()
    }
    .meets(&azure);
    // Each of the two says no by itself: listing a simulated platform does not allow simulation, nor the other way.
    let bare = Proof::default().on_bare_tpm();
    bare.fails(&Policy::default().on([PlatformKind::LocalCa]), "Simulated", &[]);
    bare.fails(&azure.clone().accepting_simulated(), "Platform", &["local-ca"]);
    assert_eq!(names(&bare.faults(&azure)), ["Platform", "Simulated"]);
    Proof::default().fails(&Policy::default().on([]), "Platform", &["platforms none"]);
}

#[test]
fn images_are_held_to_the_list() {
    Proof::default().meets(&Policy::default().with_images(["aicert-base 0.1.0", "aicert-base 0.2.0"]));
    for other in [
        "aicert-base 0.2",
        "aicert-base 0.2.0 ",
        "Aicert-Base 0.2.0",
        "aicert-base",
    ] {
        let policy = Policy::default().with_images([other]);
        Proof::default().fails(
            &policy,
            "Image",
            &[other, "the machine ran \"aicert-base 0.2.0\""],
        );
    }
    let listed = Policy::for_own_root().with_images(["aicert-base 0.2.0"]);
    Proof::default()
        .on_bare_tpm()
        .fails(&listed, "Image", &["none that was measured"]);
}

#[test]
fn firmware_and_secure_boot_are_as_demanded() {
    let boot = |firmware, secure_boot| Proof {
        boot: Some(BootFound {
            firmware,
            secure_boot,
            ..BOOTED
        }),
        ..Proof::default()
    };
    boot(None, None).meets(&Policy::default().accepting_any_firmware());
    let required = Policy::default().requiring_secure_boot();
    boot(BOOTED.firmware, Some(true)).meets(&required);
    boot(BOOTED.firmware, Some(false)).fails(&required, "SecureBoot", &["it was off"]);
    boot(BOOTED.firmware, None).fails(&required, "SecureBoot", &["nothing shows"]);
    let bare = Proof::default().on_bare_tpm();
    bare.fails(
        &Policy::for_own_root().requiring_secure_boot(),
        "SecureBoot",
        &["nothing shows"],
    );
}

#[test]
fn demanded_inputs_are_there_and_no_others() {
    let code = || InputRule::hash(COMMIT.parse().unwrap()).with_url("https://example.org/code.git");
    let data = || {
        InputRule::name("data").with_hash(
            FileDigest::of(b"content of data.bin")
                .to_string()
                .parse()
                .unwrap(),
        )
    };
    let policy = Policy::default().demanding(code()).demanding(data());
    Proof::default().meets(&policy);
    let more = || Proof::default().with_input(input("more", "https://example.org/more", &["more"]));
    more().fails(
        &policy,
        "InputsNotListed",
        &["\"more\" from \"https://example.org/more\" (file sha256:"],
    );
    more().meets(&policy.clone().accepting_other_inputs());
    let mut without = Proof::default();
    without.inputs.pop();
    without.fails(
        &policy,
        "InputMissing",
        &[
            "the name \"data\" and the hash sha256:",
            "its inputs are \"code\"",
        ],
    );
    // Without a word on inputs, all are allowed; with one entry, the other input is refused.
    more().meets(&Policy::default());
    Proof::default().fails(
        &Policy::default().demanding(data()),
        "InputsNotListed",
        &["\"code\""],
    );
    let none = Policy {
        other_inputs: Some(Others::Refused),
        ..Policy::default()
    };
    Proof::default().fails(&none, "InputsNotListed", &["\"code\"", "\"data\""]);
}

/// The name of one input and the hash of another make no third.
#[test]
fn everything_demanded_holds_of_one_input() {
    let mixed = Policy::default()
        .demanding(InputRule::name("data").with_hash(COMMIT.parse().unwrap()))
        .accepting_other_inputs();
    Proof::default().fails(
        &mixed,
        "InputMissing",
        &["the name \"data\" and the hash sha1:0123"],
    );
    let mixed = Policy::default()
        .demanding(InputRule::name("code").with_url("https://example.org/data.bin"))
        .accepting_other_inputs();
    Proof::default().fails(&mixed, "InputMissing", &["from \"https://example.org/"]);
}

#[test]
fn urls_and_names_are_exact() {
    for url in [
        "https://example.org/code",
        "https://example.org/code.git/",
        "https://example.org/code.git#main",
        "https://EXAMPLE.org/code.git",
        "http://example.org/code.git",
        "https://example.org:443/code.git",
        "https://example.org/./code.git",
        "https://ex\u{430}mple.org/code.git",
        "",
    ] {
        let policy = Policy::default()
            .demanding(InputRule::url(url))
            .accepting_other_inputs();
        Proof::default().fails(&policy, "InputMissing", &[&format!("{url:?}")]);
    }
    for name in ["Code", "code ", "c\u{43e}de", "ｃode", "cod"] {
        let policy = Policy::default()
            .demanding(InputRule::name(name))
            .accepting_other_inputs();
        Proof::default().fails(&policy, "InputMissing", &[]);
    }
}

#[test]
fn hashes_are_taken_in_every_spelling_and_of_one_kind() {
    let tree = Proof::default().inputs[0].tree.root.to_string();
    let holds = |hash: &str| {
        let policy = Policy::default()
            .demanding(InputRule::hash(hash.parse().unwrap()))
            .accepting_other_inputs();
        Proof::default().faults(&policy).is_empty()
    };
    let file = FileDigest::of(b"content of data.bin").to_string();
    for hash in [
        COMMIT,
        &COMMIT.to_uppercase(),
        &COMMIT[5..],
        &file,
        &file.to_uppercase(),
        &file[7..],
    ] {
        assert!(holds(hash), "{hash}");
    }
    assert!(holds(&format!("tree:{tree}")));
    // The root of a tree is not the hash of a file, nor the other way; nor is the hash of one file of several.
    assert!(!holds(&tree));
    assert!(!holds(&format!("tree:{file}")));
    assert!(!holds(&FileDigest::of(b"content of main.py").to_string()));
    assert!(!holds("sha1:0123456789abcdef0123456789abcdef01234568"));
}

#[test]
fn forbidden_packages_are_found_under_every_spelling() {
    for rule in [
        "numpy",
        "NumPy",
        "numpy==1.26.4",
        "NUMPY == v1.26.4.0",
        "scikit_learn",
        "Scikit.Learn==1.5",
        "scikit--learn",
    ] {
        Proof::default().fails(&forbid(rule), "PackageForbidden", &["the job had"]);
    }
    for rule in [
        "numpy==1.26.3",
        "numpy==1.26",
        "num-py",
        "scikitlearn",
        "numpy==1.26.4.post1",
        "numpy==1!1.26.4",
    ] {
        Proof::default().meets(&forbid(rule));
    }
    // A name in the log that is normalised but for a repeated `-`, which the log accepts.
    let doubled = Proof::default().with_packages(&[("evil--package", "1")]);
    doubled.fails(&forbid("evil-package"), "PackageForbidden", &[]);
    for (version, forbidden) in [
        ("2.1+cpu", true),
        ("2.1.0", true),
        ("V2.1", true),
        ("2.1.1", false),
        ("2.1rc1", false),
        ("2.1.post1", false),
    ] {
        let proof = Proof::default().with_packages(&[("torch", version)]);
        assert_eq!(
            !proof.faults(&forbid("torch==2.1")).is_empty(),
            forbidden,
            "{version}"
        );
    }
    Proof::default()
        .with_packages(&[("torch", "2.1")])
        .meets(&forbid("torch==2.1+cpu"));
    let odd = Proof::default().with_packages(&[("torch", "2.1-что")]);
    odd.fails(
        &forbid("torch==2.1"),
        "PackageVersionUnreadable",
        &["\"2.1-что\""],
    );
}

#[test]
fn pinned_packages_are_there_in_that_version() {
    Proof::default().meets(&pin("NumPy", "1.26.4"));
    Proof::default().meets(&pin("scikit.learn", "1.5"));
    Proof::default().fails(
        &pin("numpy", "1.26.5"),
        "PackageVersion",
        &["numpy==1.26.5", "numpy \"1.26.4\""],
    );
    Proof::default().fails(
        &pin("torch", "2.1"),
        "PackageMissing",
        &["torch==2.1", "2 others"],
    );
    for version in ["1.26.4+evil", "1.26.4.post1", "1.26.4rc1", "1.26.4 or so"] {
        let proof = Proof::default().with_packages(&[("numpy", version)]);
        proof.fails(&pin("numpy", "1.26.4"), "PackageVersion", &[version]);
    }
    let pinned = pin("numpy", "1.26.4").refusing_other_packages();
    Proof::default().fails(&pinned, "PackagesNotListed", &["scikit-learn \"1.5.0\""]);
    Proof::default()
        .with_packages(&[("numpy", "1.26.4")])
        .meets(&pinned);
}

/// What is inside a container image is not listed, so that nothing can be shown to be absent from it.
#[test]
fn absence_is_shown_only_where_everything_is_listed() {
    for image in [
        "pytorch/pytorch:2.1",
        "example.org/aicert/python:3.11",
        "aicert/python:3.11@sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2",
        "aicert/python:3.11x",
        "aicert/python:3.",
        "aicert/python:latest",
        "aicert/pythоn:3.11",
    ] {
        let container = Proof {
            image,
            ..Proof::default().with_packages(&[])
        };
        container.meets(&Policy::default());
        container.fails(
            &forbid("numpy"),
            "PackagesUnknown",
            &["forbids packages (numpy)", &format!("{image:?}")],
        );
        container.fails(
            &Policy::default().refusing_other_packages(),
            "PackagesUnknown",
            &[],
        );
        container.fails(
            &pin("numpy", "1.26.4"),
            "PackageMissing",
            &["no packages that are listed"],
        );
        // What is listed counts beside an image of one's own choice, for what is there, and not for what is not.
        let python = Proof {
            image,
            ..Proof::default()
        };
        python.meets(&pin("numpy", "1.26.4"));
        python.fails(&forbid("torch"), "PackagesUnknown", &[]);
    }
    Proof::default().with_packages(&[]).meets(&forbid("numpy"));
}

#[test]
fn age_is_what_is_signed_or_answers_a_nonce() {
    let policy = Policy::default().with_max_age(Duration::from_secs(30 * 86_400));
    let aged = |key_valid_from, closed, answers_nonce| Proof {
        key_valid_from: NOW - key_valid_from,
        closed: NOW - closed,
        answers_nonce,
        ..Proof::default()
    };
    aged(30 * DAY, 30 * DAY, false).meets(&policy);
    aged(30 * DAY + 1, DAY, false).fails(
        &policy,
        "Age",
        &[
            "at most 30d old at 2026-01-01T00:00:00Z",
            "certified as from 2025-12-01T23:59:59Z",
            "nothing signed shows it to be younger",
        ],
    );
    // The same quote with a new certificate for its key.
    aged(DAY, 31 * DAY, false).fails(&policy, "Age", &["closed at 2025-12-01T00:00:00Z"]);
    aged(365 * DAY, 365 * DAY, true).meets(&policy);
    aged(365 * DAY, 365 * DAY, false).meets(&Policy::default());
    // Clocks differ a little; a clock that is far ahead says nothing about age.
    aged(DAY, -120, false).meets(&policy);
    aged(DAY, -DAY, false).fails(&policy, "Age", &[]);
    let edge = Policy::default().with_max_age(Duration::MAX);
    aged(365 * DAY, 365 * DAY, false).meets(&edge);
}

#[test]
fn every_rule_that_fails_is_listed() {
    let policy = forbid("numpy")
        .on([PlatformKind::AzureTrustedLaunch])
        .with_images(["other"])
        .requiring_secure_boot()
        .demanding(InputRule::name("absent"))
        .pinning("torch".parse().unwrap(), "2.1".parse().unwrap())
        .refusing_other_packages()
        .with_max_age(Duration::from_secs(60));
    let proof = Proof {
        boot: None,
        image: "other",
        ..Proof::default().on_bare_tpm()
    };
    assert_eq!(
        names(&proof.faults(&policy)),
        [
            "Platform",
            "Simulated",
            "Image",
            "SecureBoot",
            "InputMissing",
            "InputsNotListed",
            "PackageForbidden",
            "PackageMissing",
            "PackagesNotListed",
            "PackagesUnknown",
            "Age"
        ]
    );
}

/// What a log may hold a thousand times is not said a thousand times.
#[test]
fn long_lists_are_cut() {
    let mut proof = Proof::default();
    for number in 0..500 {
        proof.inputs.push(input(
            &format!("input-{number:03}"),
            "https://example.org/x",
            &["x"],
        ));
    }
    proof.packages = (0..5_000)
        .map(|number| package(&format!("p{number:04}"), "1"))
        .collect();
    let policy = Policy::default()
        .demanding(InputRule::name("code"))
        .refusing_other_packages();
    let faults = proof.faults(&policy);
    assert_eq!(names(&faults), ["InputsNotListed", "PackagesNotListed"]);
    assert!(faults[0].to_string().contains("and 491 more"), "{}", faults[0]);
    assert!(faults[1].to_string().contains("and 4990 more"), "{}", faults[1]);
    assert!(faults.iter().all(|fault| fault.to_string().len() < 4_000));
}

#[test]
fn texts_that_name_no_package_are_refused() {
    let error = |text: &str| text.parse::<ForbiddenPackage>().unwrap_err();
    // A Cyrillic letter, a fullwidth one, the Kelvin sign (whose lowercase is `k`), and one that is not seen.
    for text in ["numpу", "ｎumpy", "\u{212a}eras", "num\u{200b}py"] {
        assert!(matches!(error(text), PackageError::Letter { .. }), "{text}");
    }
    assert!(error("numpу").to_string().contains("U+0443"));
    for text in ["", " ", "-numpy", "numpy-", ".", "num py", "num/py"] {
        assert!(matches!(error(text), PackageError::Name { .. }), "{text}");
    }
    for text in [
        "numpy>=1.0",
        "numpy<2",
        "numpy~=1.0",
        "numpy!=1.0",
        "numpy=1.0",
        "numpy[extra]",
        "numpy; x",
        "numpy @ https://x",
    ] {
        assert!(matches!(error(text), PackageError::Operator { .. }), "{text}");
    }
    for text in [
        "numpy==",
        "numpy==1.*",
        "numpy===1.0",
        "numpy==1.0,==2.0",
        "numpy==latest",
    ] {
        assert!(matches!(error(text), PackageError::Version { .. }), "{text}");
    }
}
