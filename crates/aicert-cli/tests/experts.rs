//! The commands that look at one piece of evidence: what they print, what they say of files that are something else.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod desk;

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use aicert_core::tpm::PcrBank;
use aicert_verify::eventlog::EventType;
use aicert_verify::testing::{Boot, application, event, section, separator, tagged, utf16, variable};
use desk::Desk;
use insta::assert_snapshot;
use serde_json::{Value, json};

/// What firmware, systemd-stub and kernel measure, with a file name that would move a terminal's cursor.
fn boot() -> Boot {
    let mut events = vec![
        event(0, EventType::S_CRTM_VERSION, &utf16("1.0")),
        event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            &variable("SecureBoot", &[0]),
        ),
        event(
            4,
            EventType::EFI_ACTION,
            b"Calling EFI Application from Boot Option",
        ),
    ];
    events.extend((0..8).map(separator));
    events.push(application("\\EFI\\BOOT\\\u{1b}[2J.EFI", b"unified kernel image"));
    events.extend(section(".linux", b"kernel"));
    events.push(tagged(9, 0x8f3b_22ec, "Linux initrd", b"initrd"));
    Boot { locality: 3, events }
}

fn write_boot(desk: &Desk) {
    let pcrs = |bank| serde_json::to_value(boot().pcrs(bank)).unwrap();
    let values = json!({ "sha1": pcrs(PcrBank::Sha1), "sha256": pcrs(PcrBank::Sha256) });
    desk.write("log", boot().log())
        .write("pcrs.json", values.to_string());
}

fn json_of(shown: &str) -> Value {
    let (_, json) = shown.split_once("--- stdout\n").unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_log_is_shown_event_by_event() {
    let desk = Desk::new();
    write_boot(&desk);
    assert_snapshot!(desk.run(&["eventlog", "log"]), @r#"
    exit code 0
    --- stdout
    EVENT LOG  log
    format  crypto-agile (Spec ID Event03, 2.0 errata 0)
    banks   sha1 (never trusted), sha256
    size    16 events, 1.4 kB

     #  PCR  event (= data is what was hashed; ~ data only describes it; ! data is not what was hashed)
     0    0    EV_NO_ACTION the TPM was started from locality 3
     1    0  = EV_S_CRTM_VERSION 1.0
               sha256:d698e77c4a4c35c4a8a5a4633613d5d07319b67c5c9d4f6d792aab6e06eeb8d9
     2    7  = EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot is off
               sha256:115aa827dbccfb44d216ad9ecfda56bdea620b860a94bed5b7a27bba1c4d02d8
     3    4  = EV_EFI_ACTION Calling EFI Application from Boot Option
               sha256:3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba
     4    0  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
     5    1  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
     6    2  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
     7    3  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
     8    4  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
     9    5  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
    10    6  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
    11    7  = EV_SEPARATOR separator 00000000
               sha256:df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119
    12    4  ~ EV_EFI_BOOT_SERVICES_APPLICATION \EFI\BOOT\\u{1b}[2J.EFI
               sha256:f3224f71c5ad76989e708bfaa6f604ddea7dbc1cc6b6721cf256e23b183fd665
    13   11  = EV_IPL section .linux of the kernel image
               sha256:0da293e37ad5511c59be47993769aacb91b243f7d010288e118dc90e95aaef5a
    14   11  ~ EV_IPL section .linux of the kernel image
               sha256:6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c
    15    9  ~ EV_EVENT_TAG initrd given to the kernel: Linux initrd
               sha256:09e6c018d2c8c4903308613dd1b72484d57eadf12ec50ddc8f52e5accce470f2

    PCRs after these events, all others as they start
      0  sha1 (never trusted)  bccf5a7ee3fff5a8eb7a030cdd9488aaf0972e11
      1  sha1 (never trusted)  b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236
      2  sha1 (never trusted)  b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236
      3  sha1 (never trusted)  b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236
      4  sha1 (never trusted)  9aa03f6e8f9a9edc37d72c8ac9dd2724bd77cf94
      5  sha1 (never trusted)  b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236
      6  sha1 (never trusted)  b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236
      7  sha1 (never trusted)  d09d020cf9660f279cef0ee10c5e85c8a6e785ae
      9  sha1 (never trusted)  c4bbd38b0615f00ce041966ac3416fe9a5ec1953
     11  sha1 (never trusted)  21ed295c20c3244e43ac01557e25e07d05be09ac
      0  sha256  6ef88caea18efa1870d184b77fcacdda9e3e48f4e6138baf167c9c9091aea5e1
      1  sha256  3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
      2  sha256  3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
      3  sha256  3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
      4  sha256  fb6e5780898caabe6b7e15fe0346bb37eba08dded7b7d465661458fc5fce34b2
      5  sha256  3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
      6  sha256  3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
      7  sha256  25f01af5d39925c6c7fbcee8819de8a4e9e422dd831a7bb5bd52b2762ea928f9
      9  sha256  5c1d070ec5d29dc510a2b42e695f04c04407f7b9454a63b65727c3e1b8ccfbc1
     11  sha256  ff4d55cd85724de92ab538c82df0dd57ae0b5281e088a1a64df159f33c343702

    A log proves nothing without a quote over these PCRs: whoever sends it wrote it.
    "#);
    assert_eq!(desk.run(&["eventlog", "log", "--quiet"]), "exit code 0\n");
}

#[test]
fn a_log_as_json_has_everything() {
    let desk = Desk::new();
    write_boot(&desk);
    let mut value = json_of(&desk.run(&["eventlog", "log", "--json"]));
    let events: Vec<Value> = serde_json::from_value(value["events"].take()).unwrap();
    assert_eq!(events.len(), boot().events.len() + 1);
    assert_snapshot!(serde_json::to_string_pretty(&value).unwrap(), @r#"
    {
      "authenticated": false,
      "banks": [
        "sha1",
        "sha256"
      ],
      "compared": null,
      "events": null,
      "faults": [],
      "format": "crypto-agile",
      "header": {
        "algorithms": [
          {
            "digest_len": 20,
            "id": 4
          },
          {
            "digest_len": 32,
            "id": 11
          }
        ],
        "platform_class": 0,
        "signature": "Spec ID Event03",
        "specification": [
          2,
          0,
          0
        ],
        "uintn_size": 2,
        "vendor_info": ""
      },
      "padding": null,
      "pcrs": {
        "sha1": {
          "0": "bccf5a7ee3fff5a8eb7a030cdd9488aaf0972e11",
          "1": "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
          "11": "21ed295c20c3244e43ac01557e25e07d05be09ac",
          "2": "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
          "3": "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
          "4": "9aa03f6e8f9a9edc37d72c8ac9dd2724bd77cf94",
          "5": "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
          "6": "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
          "7": "d09d020cf9660f279cef0ee10c5e85c8a6e785ae",
          "9": "c4bbd38b0615f00ce041966ac3416fe9a5ec1953"
        },
        "sha256": {
          "0": "6ef88caea18efa1870d184b77fcacdda9e3e48f4e6138baf167c9c9091aea5e1",
          "1": "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
          "11": "ff4d55cd85724de92ab538c82df0dd57ae0b5281e088a1a64df159f33c343702",
          "2": "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
          "3": "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
          "4": "fb6e5780898caabe6b7e15fe0346bb37eba08dded7b7d465661458fc5fce34b2",
          "5": "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
          "6": "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
          "7": "25f01af5d39925c6c7fbcee8819de8a4e9e422dd831a7bb5bd52b2762ea928f9",
          "9": "5c1d070ec5d29dc510a2b42e695f04c04407f7b9454a63b65727c3e1b8ccfbc1"
        }
      },
      "startup_locality": 3,
      "untrusted_banks": [
        "sha1"
      ]
    }
    "#);
    let application = events
        .iter()
        .find(|event| event["type"] == "EV_EFI_BOOT_SERVICES_APPLICATION");
    assert_snapshot!(serde_json::to_string_pretty(application.unwrap()).unwrap(), @r#"
    {
      "data": {
        "address": 2113929216,
        "device_path": {
          "file": "\\EFI\\BOOT\\\u001b[2J.EFI",
          "text": "\\EFI\\BOOT\\\u001b[2J.EFI"
        },
        "kind": "image",
        "length": 20,
        "link_time_address": 0
      },
      "data_check": {
        "sha1": "not-hash-of-data",
        "sha256": "not-hash-of-data"
      },
      "digests": {
        "sha1": "548705608d6e343d6b92e1ca23991b7dc965c521",
        "sha256": "f3224f71c5ad76989e708bfaa6f604ddea7dbc1cc6b6721cf256e23b183fd665"
      },
      "number": 12,
      "offset": 1083,
      "pcr": 4,
      "size": 78,
      "type": "EV_EFI_BOOT_SERVICES_APPLICATION"
    }
    "#);
}

#[test]
fn a_log_is_compared_with_pcrs() {
    let desk = Desk::new();
    write_boot(&desk);
    let shown = desk.run(&["eventlog", "log", "--pcrs", "pcrs.json"]);
    assert!(shown.starts_with("exit code 0\n"), "{shown}");
    assert!(shown.contains("SAME PCRS  all 28 that were given"), "{shown}");

    // One PCR that another log would give, one that no log extends, and a bank that is not in the log.
    let other = json!({
        "sha256": { "4": "11".repeat(32), "13": "00".repeat(32), "17": "ff".repeat(32), "23": "ff".repeat(32) },
        "sha384": { "0": "22".repeat(48) },
    });
    desk.write("other.json", other.to_string());
    let shown = desk.run(&["eventlog", "log", "--pcrs", "other.json"]);
    let (_, comparison) = shown.split_once("\nOTHER PCRS").unwrap();
    assert!(shown.starts_with("exit code 1\n"), "{shown}");
    assert_snapshot!(comparison, @r#"
      3 of the 5 that were given
      PCR 4  sha256  the log gives fb6e5780898caabe6b7e15fe0346bb37eba08dded7b7d465661458fc5fce34b2
                     given was     1111111111111111111111111111111111111111111111111111111111111111
      PCR 23  sha256  the log gives 0000000000000000000000000000000000000000000000000000000000000000
                      given was     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
      PCR 0  sha384  the log has no digests of this bank

    A log proves nothing without a quote over these PCRs: whoever sends it wrote it.
    "#);
    let value = json_of(&desk.run(&["eventlog", "log", "--pcrs", "other.json", "--json"]));
    let equal: Vec<_> = value["compared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|comparison| {
            (
                comparison["bank"].as_str(),
                comparison["pcr"].as_u64(),
                comparison["equal"].as_bool(),
            )
        })
        .map(|(bank, pcr, equal)| (bank.unwrap(), pcr.unwrap(), equal.unwrap()))
        .collect();
    assert_eq!(
        equal,
        [
            ("sha256", 4, false),
            ("sha256", 13, true),
            ("sha256", 17, true),
            ("sha256", 23, false),
            ("sha384", 0, false)
        ]
    );
}

#[test]
fn what_no_honest_log_has_is_listed() {
    let desk = Desk::new();
    let mut boot = boot();
    boot.events.remove(3);
    boot.events[1].hashed = Some(variable("SecureBoot", &[1]));
    desk.write("log", boot.log_of(&[PcrBank::Sha256]));
    let shown = desk.run(&["eventlog", "log"]);
    let (_, faults) = shown.split_once("\nFAULTS").unwrap();
    assert_snapshot!(faults, @r#"
      a proof with this log is refused
      the data of event 2 of the boot log (PCR 7, EV_EFI_VARIABLE_DRIVER_CONFIG) is not what was measured: its digest would be 115aa827dbccfb44d216ad9ecfda56bdea620b860a94bed5b7a27bba1c4d02d8, the event has ccfc4bb32888a345bc8aeadaba552b627d99348c767681ab3141f5b01e40a40e
      help: do not believe this proof: the data, or the type, was changed after it was measured
      the boot log has no separator in PCR 0: what firmware measured cannot be told from what was measured after it
      help: do not believe this proof: its boot log was cut, or is not that of a whole boot

    A log proves nothing without a quote over these PCRs: whoever sends it wrote it.
    "#);
    assert!(shown.starts_with("exit code 1\n"), "{shown}");
    let value = json_of(&desk.run(&["eventlog", "log", "--json"]));
    let causes: Vec<_> = value["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["cause"])
        .collect();
    assert_eq!(causes, ["DataDiffers", "SeparatorMissing"]);
}

#[test]
fn a_log_of_sha1_is_marked_as_never_trusted() {
    let desk = Desk::new();
    desk.write("log", boot().log_of(&[PcrBank::Sha1]));
    let shown = desk.run(&["eventlog", "log"]);
    assert!(shown.contains("banks   sha1 (never trusted)\n"), "{shown}");
    assert!(shown.contains("  4  sha1 (never trusted)  "), "{shown}");
    let value = json_of(&desk.run(&["eventlog", "log", "--json"]));
    assert_eq!(value["untrusted_banks"], json!(["sha1"]));
    assert_eq!(value["authenticated"], false);
}

#[test]
fn a_log_may_come_from_standard_input() {
    let desk = Desk::new();
    let piped = |bytes: &[u8]| {
        let mut child = desk
            .command(&["eventlog", "-", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        desk.show(&child.wait_with_output().unwrap())
    };
    assert_eq!(piped(&boot().log()), "exit code 0\n");
    assert_snapshot!(piped(b""), @r#"
    exit code 2
    --- stderr
    error: the event log - is empty
    help: nothing came from standard input, which can stand for one file only
    "#);
}

#[test]
fn files_that_are_something_else_are_recognised() {
    let desk = Desk::new();
    write_boot(&desk);
    let log = boot().log();
    desk.write("empty", "")
        .write("cut", &log[..log.len() - 3])
        .write("quote.msg", b"\xffTCG\x80\x18\0\x22\0\x0b")
        .write("quote.sig", b"\0\x18\0\x0b\0\x20")
        .write(
            "ca.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        )
        .write("none.json", "{}")
        .write("evil\x1b[2J", "{}");
    std::fs::create_dir(desk.path("folder")).unwrap();
    // A gigabyte that takes no room.
    File::create(desk.path("huge")).unwrap().set_len(1 << 30).unwrap();
    let log = |file: &str| desk.run(&["eventlog", file]);
    assert_snapshot!(log("nowhere"), @r#"
    exit code 2
    --- stderr
    error: could not read the event log nowhere
      because: No such file or directory (os error 2)
    "#);
    assert_snapshot!(log("folder"), @r#"
    exit code 2
    --- stderr
    error: could not read the event log folder
      because: is a directory
    "#);
    assert_snapshot!(log("empty"), @r#"
    exit code 2
    --- stderr
    error: the event log empty is empty
    "#);
    assert_snapshot!(log("huge"), @r#"
    exit code 2
    --- stderr
    error: the event log huge is too large: it has more than 4,194,304 bytes
    "#);
    assert_snapshot!(log("ca.pem"), @r#"
    exit code 2
    --- stderr
    error: ca.pem cannot be read as an event log
      because: event 0, at byte 0, ends inside its data: 1112099149 bytes are needed where 27 are left
    help: it looks like certificates in PEM
    "#);
    assert_snapshot!(log("cut"), @r#"
    exit code 2
    --- stderr
    error: cut cannot be read as an event log
      because: event 15, at byte 1405, ends inside its data: 21 bytes are needed where 18 are left
    "#);
    assert_snapshot!(log("evil\x1b[2J"), @r#"
    exit code 2
    --- stderr
    error: evil\u{1b}[2J cannot be read as an event log
      because: event 0, at byte 0, ends inside its PCR: 4 bytes are needed where 2 are left
    help: it looks like JSON
    "#);
    assert_snapshot!(desk.run(&["eventlog", "log", "--pcrs", "log"]), @r#"
    exit code 2
    --- stderr
    error: log cannot be read as PCR values
      because: the PCR values are not JSON of the form {"sha256": {"0": "<hexadecimal>", …}}: expected value at line 1 column 1
    help: it looks like a boot event log
    "#);
    assert_snapshot!(desk.run(&["eventlog", "log", "--pcrs", "none.json", "--json"]), @r#"
    exit code 2
    --- stderr
    {"causes":[],"event":"error","exit_code":2,"help":null,"message":"none.json has no PCR values"}
    "#);

    let quote = |message: &str, signature: &str, pcrs: &str, chain: &str, nonce: &str| {
        let files = [
            "--message",
            message,
            "--signature",
            signature,
            "--pcrs",
            pcrs,
            "--chain",
            chain,
        ];
        desk.run(
            &[
                &["quote", "verify", "--platform", "local-ca", "--nonce", nonce][..],
                &files,
            ]
            .concat(),
        )
    };
    assert_snapshot!(quote("quote.sig", "quote.msg", "pcrs.json", "ca.pem", "00"), @r#"
    exit code 2
    --- stderr
    error: quote.sig cannot be read as the message of a quote (TPMS_ATTEST)
    help: it looks like the signature of a TPM (TPMT_SIGNATURE)
    "#);
    assert_snapshot!(quote("quote.msg", "pcrs.json", "pcrs.json", "ca.pem", "00"), @r#"
    exit code 2
    --- stderr
    error: pcrs.json cannot be read as a signature (TPMT_SIGNATURE or DER)
    help: it looks like JSON
    "#);
    assert_snapshot!(quote("quote.msg", "quote.sig", "ca.pem", "ca.pem", "00"), @r#"
    exit code 2
    --- stderr
    error: ca.pem cannot be read as PCR values
      because: the PCR values are not JSON of the form {"sha256": {"0": "<hexadecimal>", …}}: invalid number at line 1 column 2
    help: it looks like certificates in PEM
    "#);
    assert_snapshot!(quote("quote.msg", "quote.sig", "pcrs.json", "quote.msg", "00"), @r#"
    exit code 2
    --- stderr
    error: quote.msg cannot be read as certificates
      because: it is neither one certificate in DER nor certificates in PEM: it is neither text nor DER
    help: it looks like the message of a TPM quote (TPMS_ATTEST)
    "#);
    assert_snapshot!(quote("quote.msg", "quote.sig", "pcrs.json", "ca.pem", "00"), @r#"
    exit code 2
    --- stderr
    error: ca.pem cannot be read as certificates
      because: it is neither one certificate in DER nor certificates in PEM: a length in it is larger than what it is part of, or it is no DER at all
    "#);
    assert_snapshot!(quote("quote.msg", "quote.sig", "pcrs.json", "ca.pem", "123"), @r#"
    exit code 2
    --- stderr
    error: `--nonce` is not hexadecimal: it has 3 digits, an odd number
    help: give two digits (0 to 9, a to f) for each byte, and nothing else
    "#);
    assert_snapshot!(desk.run(&["quote", "verify", "--platform", "azure"]), @r#"
    exit code 2
    --- stderr
    error: invalid value 'azure' for '--platform <PLATFORM>'
      [possible values: azure-trusted-launch, gce-shielded-vm, local-ca]

      tip: a similar value exists: 'azure-trusted-launch'

    For more information, try '--help'.
    "#);
    assert_snapshot!(desk.run(&["nitro", "verify", "pcrs.json"]), @r#"
    exit code 2
    --- stderr
    error: pcrs.json cannot be read as an attestation document (COSE_Sign1)
    help: it looks like JSON
    "#);
    assert_snapshot!(desk.run(&["nitro", "verify", "huge", "--nonce", "0x00"]), @r#"
    exit code 2
    --- stderr
    error: `--nonce` is not hexadecimal: character 2 is 'x' (leave `0x` out)
    help: give two digits (0 to 9, a to f) for each byte, and nothing else
    "#);
    assert_snapshot!(desk.run(&["nitro", "verify", "huge"]), @r#"
    exit code 2
    --- stderr
    error: the attestation document huge is too large: it has more than 32,768 bytes
    "#);
}

#[test]
fn what_is_no_image_is_not_measured() {
    let desk = Desk::new();
    desk.write("empty", "")
        .write("disk.qcow2", b"QFI\xfb\0\0\0\x03")
        .write("program.efi", [&b"MZ"[..], &[0; 62]].concat())
        .write("references.json", "{\"version\": \"aicert/reference-values/v1\"}");
    std::fs::create_dir(desk.path("folder")).unwrap();
    File::create(desk.path("zeros"))
        .unwrap()
        .set_len(2 << 30)
        .unwrap();
    let measure = |file: &str| desk.run(&["image", "measure", file]);
    assert_snapshot!(measure("nowhere"), @r#"
    exit code 2
    --- stderr
    error: could not read the image nowhere
      because: No such file or directory (os error 2)
    "#);
    assert_snapshot!(measure("folder"), @r#"
    exit code 2
    --- stderr
    error: could not read the image folder
      because: is a directory
    "#);
    assert_snapshot!(measure("empty"), @r#"
    exit code 2
    --- stderr
    error: the image empty is empty
    "#);
    assert_snapshot!(measure("disk.qcow2"), @r#"
    exit code 2
    --- stderr
    error: it cannot be computed what booting disk.qcow2 measures
      because: the file begins with "QFI\\xfb\\x00\\x00\\x00\\x03"; expected `MZ` (a UKI) or a disk with a partition table (`EFI PART` at byte 512 or 4096): give the UKI or the raw disk image, not one that is packed or of another format such as qcow2
    help: it looks like a disk image in the format of QEMU (qcow2); convert it to raw
    "#);
    assert_snapshot!(measure("zeros"), @r#"
    exit code 2
    --- stderr
    error: it cannot be computed what booting zeros measures
      because: the file begins with "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"; expected `MZ` (a UKI) or a disk with a partition table (`EFI PART` at byte 512 or 4096): give the UKI or the raw disk image, not one that is packed or of another format such as qcow2
    "#);
    assert_snapshot!(measure("program.efi"), @r#"
    exit code 2
    --- stderr
    error: it cannot be computed what booting program.efi measures
      because: the UKI, at byte 0: there is no `PE\0\0`, where byte 0x3c points to; firmware may refuse it or measure something else, so build the image again
    "#);
    assert_snapshot!(measure("references.json"), @r#"
    exit code 2
    --- stderr
    error: it cannot be computed what booting references.json measures
      because: the file begins with "{\\\"versio"; expected `MZ` (a UKI) or a disk with a partition table (`EFI PART` at byte 512 or 4096): give the UKI or the raw disk image, not one that is packed or of another format such as qcow2
    help: it looks like JSON
    "#);
}

#[test]
fn help_of_each_command_is_complete() {
    let desk = Desk::new();
    // What stands after the options is the same everywhere.
    let help = |arguments: &[&str]| {
        let shown = desk.run(arguments);
        let (own, _) = shown.split_once("\nOutput:\n").unwrap();
        own.to_owned()
    };
    assert_snapshot!(help(&["eventlog", "-h"]), @r#"
    exit code 0
    --- stdout
    Shows a boot event log: its events, the PCRs that they lead to, and what no honest log has

    Usage: aicert eventlog [OPTIONS] <FILE>

    Arguments:
      <FILE>  The log, such as /sys/kernel/security/tpm0/binary_bios_measurements; `-` is standard input

    Options:
          --pcrs <FILE>  PCR values to compare with: JSON, {"sha256": {"0": "<hexadecimal>", …}}
      -h, --help         Print help
    "#);
    assert_snapshot!(help(&["quote", "verify", "-h"]), @r#"
    exit code 0
    --- stdout
    Says whether a quote holds, and what it covers

    Usage: aicert quote verify [OPTIONS] --platform <PLATFORM> --message <FILE> --signature <FILE> --pcrs <FILE> --chain <FILE>...

    Options:
          --platform <PLATFORM>   The platform that the quote must be of [possible values:
                                  azure-trusted-launch, gce-shielded-vm, local-ca]
          --message <FILE>        What the TPM signed (TPMS_ATTEST); `-` is standard input, here as
                                  below
          --signature <FILE>      The signature: TPMT_SIGNATURE, or an ECDSA signature in DER
          --pcrs <FILE>           The PCR values: JSON, {"sha256": {"0": "<hexadecimal>", …}}
          --chain <FILE>...       The certificates (PEM or DER), in any order: the attestation key's
                                  own, intermediates, the root
          --public <FILE>         The attestation key's public area (TPMT_PUBLIC or TPM2B_PUBLIC);
                                  needed for local-ca
          --nonce <HEX>           What the qualifying data must be; without it the quote may be of any
                                  age
          --at <TIME>             The time at which certificates must be valid, as 2026-01-31T23:59:59Z
                                  [default: now]
          --trust-anchor <PEM>    A file with a root certificate (PEM or DER) to trust, for local-ca
          --set-aside-other-pcrs  Sets aside values of PCRs that the quote does not cover, instead of
                                  refusing them
      -h, --help                  Print help (see more with '--help')
    "#);
    assert_snapshot!(help(&["nitro", "verify", "-h"]), @r#"
    exit code 0
    --- stdout
    Says whether an attestation document holds, and what it covers

    Usage: aicert nitro verify [OPTIONS] <DOC>

    Arguments:
      <DOC>  The document (COSE_Sign1); `-` is standard input

    Options:
          --nonce <HEX>         The nonce that it must hold; without it the document may be of any age
          --at <TIME>           The time at which certificates must be valid, as 2026-01-31T23:59:59Z
                                [default: now]
          --trust-anchor <PEM>  A file with a root certificate (PEM or DER) to trust beside that of AWS
      -h, --help                Print help
    "#);
    assert_snapshot!(help(&["image", "measure", "-h"]), @r#"
    exit code 0
    --- stdout
    Computes the events and PCR values that booting an image leaves; `--json` writes reference values

    Usage: aicert image measure [OPTIONS] <FILE>

    Arguments:
      <FILE>  A unified kernel image, or a raw disk image with one

    Options:
          --name <NAME>            The name that the reference values give it [default: the one that the
                                   image has]
          --path <PATH>            Where the unified kernel image is on a disk's EFI system partition
                                   [default: \EFI\BOOT\BOOTX64.EFI]
          --assume-stub <VERSION>  Treats a version of systemd-stub that is not known as this one
      -h, --help                   Print help
    "#);
}

#[test]
fn what_proofs_are_held_to_is_checked_before_they_are_read() {
    let desk = Desk::new();
    desk.write("proof.json", "{}")
        .write("wrong.yaml", "simulatd: true\nmax_age: soon\n")
        .write("binary", [0xff, 0xfe, 0, 1])
        .write("values.json", "{\"version\": \"v2\"}")
        .write("cert", "no certificate");
    assert_snapshot!(desk.run(&["verify", "proof.json", "--policy", "wrong.yaml"]), @r#"
    exit code 2
    --- stderr
    error: wrong.yaml cannot be used: 2 problems

    wrong.yaml:1:1: unknown key `simulatd` in a policy
      |
    1 | simulatd: true
      | ^^^^^^^^
      = help: did you mean `simulated`?

    wrong.yaml:2:10: "soon" is no time span
      |
    2 | max_age: soon
      |          ^^^^
      = help: write it with its unit: `30d`, `12h`, `1d12h`; units are d, h, m and s
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--policy", "binary"]), @r#"
    exit code 2
    --- stderr
    error: binary cannot be read as a policy (YAML)
      because: invalid utf-8 sequence of 1 bytes from index 0
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--reference-values", "values.json"]), @r#"
    exit code 2
    --- stderr
    error: values.json cannot be read as reference values
      because: unknown variant `v2`, expected `aicert/reference-values/v1` at line 1 column 16
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--reference-values", "binary"]), @r#"
    exit code 2
    --- stderr
    error: binary cannot be read as reference values
      because: expected value at line 1 column 1
    "#);
    assert_snapshot!(desk.run(&["inspect", "proof.json", "--intermediate", "cert"]), @r#"
    exit code 2
    --- stderr
    error: cert cannot be read as certificates
      because: it is neither one certificate in DER nor certificates in PEM: it does not begin and end with the lines of one CERTIFICATE block
    help: it looks like text
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--nonce", "abc"]), @r#"
    exit code 2
    --- stderr
    error: `--nonce` is not hexadecimal: it has 3 digits, an odd number
    help: give two digits (0 to 9, a to f) for each byte, and nothing else
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--nonce", "abcd"]), @r#"
    exit code 2
    --- stderr
    error: `--nonce` has 2 bytes; the nonce of a proof has 32
    help: give the 64 hexadecimal digits that whoever asked for the proof chose
    "#);
}
