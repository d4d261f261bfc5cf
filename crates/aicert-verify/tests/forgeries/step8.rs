//! What the end user asks about: the files they have, the inputs they know.

use aicert_core::manifest::Manifest;
use aicert_core::tree::{Entry, Tree};
use aicert_verify::Cause;
use aicert_verify::input::InputFault;
use aicert_verify::output::OutputFault;

use crate::support::*;

fn outputs() -> Vec<Entry> {
    vec![
        file("model/weights.bin", b"weights"),
        file("model/config.json", b"{}"),
    ]
}

fn tree_of(entries: Vec<Entry>) -> Tree {
    Tree::from_entries(entries).unwrap()
}

#[test]
fn the_outputs_that_were_measured_are_accepted() {
    check(&Recipe::default().build())
        .unwrap()
        .check_output_tree(&tree_of(outputs()), None)
        .unwrap();
}

#[test]
fn every_difference_in_the_outputs_is_named() {
    let verified = check(&Recipe::default().build()).unwrap();
    let found = vec![file("model/weights.bin", b"Weights"), file("model/extra", b"")];
    let result = verified.check_output_tree(&tree_of(found), None);
    let rejection = result.unwrap_err();
    let text = rejection.to_string();
    for (index, expected) in [
        "\"model/config.json\" is missing; expected a file of 2 bytes",
        "\"model/extra\" is a file of 0 bytes",
        "\"model/weights.bin\" is a file of 7 bytes with sha256:",
    ]
    .iter()
    .enumerate()
    {
        assert!(
            rejection.failures()[index].to_string().starts_with(expected),
            "{text}"
        );
    }
    assert_eq!(rejection.failures().len(), 3, "{text}");

    let executable = Entry::file(
        "model/config.json".parse().unwrap(),
        true,
        2,
        aicert_core::digest::FileDigest::of(b"{}"),
    );
    let result = verified.check_output_tree(
        &tree_of(vec![executable, file("model/weights.bin", b"weights")]),
        None,
    );
    refused!(
        result,
        Cause::Output(OutputFault::Changed { .. }),
        "is an executable file of 2 bytes"
    );
    let link = Entry::symlink("model/config.json".parse().unwrap(), "weights.bin".into()).unwrap();
    let result =
        verified.check_output_tree(&tree_of(vec![link, file("model/weights.bin", b"weights")]), None);
    refused!(
        result,
        Cause::Output(OutputFault::Changed { .. }),
        "is a symbolic link to \"weights.bin\""
    );
}

#[test]
fn many_differences_are_counted_after_the_first_fifty() {
    let verified = check(&Recipe::default().build()).unwrap();
    let found = (0..100)
        .map(|index| file(&format!("extra/{index}"), b""))
        .collect();
    let rejection = verified.check_output_tree(&tree_of(found), None).unwrap_err();
    assert_eq!(rejection.failures().len(), 51);
    assert!(matches!(
        rejection.failures()[50].cause(),
        Cause::Output(OutputFault::More { found: 52 })
    ));
}

#[test]
fn outputs_too_many_to_list_are_compared_by_root_or_by_manifest() {
    let many = |last: &[u8]| {
        let mut entries: Vec<_> = (0..1_500)
            .map(|index| file(&format!("shard-{index:04}"), b"x"))
            .collect();
        entries.push(file("z", last));
        tree_of(entries)
    };
    let contents = with!(OutputsMeasured, |outputs| outputs.tree = many(b"last").measured());
    let verified = check(
        &Recipe {
            contents,
            ..Recipe::default()
        }
        .build(),
    )
    .unwrap();
    assert!(verified.outputs().is_empty());
    verified.check_output_tree(&many(b"last"), None).unwrap();
    refused!(
        verified.check_output_tree(&many(b"LAST"), None),
        Cause::Output(OutputFault::Root { .. }),
        "<proof>.manifest"
    );
    let manifest = Manifest::new(vec![many(b"last")]);
    refused!(
        verified.check_output_tree(&many(b"LAST"), Some(&manifest)),
        Cause::Output(OutputFault::Changed { path, .. }) if path == "z",
        "\"z\" is a file of 4 bytes"
    );
    // A manifest of something else says nothing, and changes nothing.
    let other = Manifest::new(vec![many(b"LAST")]);
    refused!(
        verified.check_output_tree(&many(b"LAST"), Some(&other)),
        Cause::Output(OutputFault::Root { .. }),
        "have the root"
    );
}

#[cfg(feature = "outputs")]
#[test]
fn a_directory_is_hashed_and_compared() {
    use aicert_core::measure::{HardLinks, Options};
    let verified = check(&Recipe::default().build()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("weights.bin"), b"weights").unwrap();
    std::fs::write(model.join("config.json"), b"{}").unwrap();
    let options = Options::quiet(HardLinks::Accept);
    verified.check_outputs(directory.path(), None, &options).unwrap();
    std::fs::write(model.join("weights.bin"), b"weightz").unwrap();
    refused!(
        verified.check_outputs(directory.path(), None, &options),
        Cause::Output(OutputFault::Changed { path, .. }) if path == "model/weights.bin",
        "do not use this file"
    );
    refused!(
        verified.check_outputs(&directory.path().join("absent"), None, &options),
        Cause::Output(OutputFault::NotMeasured { .. }),
        "cannot be measured"
    );
}

#[test]
fn an_input_is_known_by_commit_file_hash_and_tree_root() {
    let certificate = Recipe::default().build();
    let verified = check(&certificate).unwrap();
    let data = aicert_core::digest::FileDigest::of(b"data").to_string();
    for (name, hash) in [
        ("code", COMMIT.to_owned()),
        ("code", COMMIT[5..].to_uppercase()),
        ("code", format!("tree:{}", certificate.inputs[0].tree)),
        ("data", data.clone()),
        ("data", data[7..].to_owned()),
        ("data", format!("tree:{}", certificate.inputs[1].tree)),
        (
            "data",
            format!("TREE:{}", &certificate.inputs[1].tree.to_string()[7..]),
        ),
    ] {
        verified.check_input(name, &hash).unwrap();
    }
    refused!(
        verified.check_input("code", &"cd".repeat(20)),
        Cause::Input(InputFault::Differs { .. }),
        &format!(
            "input \"code\" is not commit sha1:{}; it is commit {COMMIT}, tree sha256:",
            "cd".repeat(20)
        )
    );
    refused!(
        verified.check_input("data", COMMIT),
        Cause::Input(InputFault::Differs { .. }),
        "it is file sha256:"
    );
    refused!(
        verified.check_input("Code", COMMIT),
        Cause::Input(InputFault::Unknown { .. }),
        "no input \"Code\"; its inputs are \"code\", \"data\""
    );
    for wrong in [
        "",
        "sha1:",
        "sha256:abc",
        "md5:00",
        &"0".repeat(41),
        &format!("sha256:{}", "0".repeat(40)),
        &format!("tree:sha1:{}", "0".repeat(40)),
        &format!("tree:{COMMIT}"),
    ] {
        refused!(
            verified.check_input("code", wrong),
            Cause::Input(InputFault::NotAHash { .. }),
            "is no hash"
        );
    }
}

/// What is hashed for the root of a tree is `0x01` and two hashes: a file can hold these 65 bytes, and have the root of
/// a data set that everybody knows as its SHA-256.
#[test]
fn a_file_made_to_have_the_root_of_a_data_set_is_not_that_data_set() {
    use aicert_core::canonical::to_jcs;
    use aicert_core::digest::FileDigest;
    use aicert_core::event::{Pin, PinKind};
    use sha2::{Digest as _, Sha256};

    let data_set = tree_of(vec![file("a", b"1"), file("b", b"2")]);
    let leaf = |entry: &Entry| {
        Sha256::new()
            .chain_update([0])
            .chain_update(to_jcs(entry).unwrap())
            .finalize()
    };
    let [a, b] = data_set.entries() else { panic!() };
    let fake = [&[1][..], &leaf(a), &leaf(b)].concat();
    let root = data_set.root().to_string();
    assert_eq!(FileDigest::of(&fake).to_string(), root);

    let contents = with!(InputMeasured, |input| if input.name == "data" {
        input.requested.clear();
        input.resolved = vec![Pin {
            kind: PinKind::Sha256,
            value: root.clone(),
        }];
        input.tree = tree(&[("data.bin", &fake)]);
    });
    let verified = check(
        &Recipe {
            contents,
            ..Recipe::default()
        }
        .build(),
    )
    .unwrap();
    refused!(
        verified.check_input("data", &format!("tree:{root}")),
        Cause::Input(InputFault::Differs { .. }),
        &format!("input \"data\" is not tree {root}; it is file {root}")
    );

    // Who knows a data set by its root is told how to ask for it, whatever the input is.
    let honest = Recipe::default().build();
    let root = honest.inputs[0].tree.to_string();
    refused!(
        check(&honest).unwrap().check_input("code", &root),
        Cause::Input(InputFault::RootOfTree { .. }),
        &format!("say `tree:{root}`")
    );
}
